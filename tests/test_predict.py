"""Videos in, class names and probabilities out: from the command line and from Python. About 25 s of one core."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import refused, run
from made_videos import write, write_folder
from small_checkpoint import INPUT, NAMES, small_checkpoint

import csn
from csn.checkpoints.facts import Input
from csn.data.video import VideoError, read_frames
from csn.data.views import crops, uniform
from csn.predict import Answer, answers, main, protocol, videos_of
from csn.provenance import REPOSITORY
from csn.spec import UserError


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_checkpoint(tmp_path_factory.mktemp("net") / "net.safetensors")


def expected(net: torch.nn.Module, path: Path, clips: int, number: int, indices: Sequence[Sequence[int]] = (), given: Input = INPUT) -> np.ndarray:
    """Probabilities written out: every step by hand. indices: of the frames of each clip, where they are not those of a video of 24."""
    probs = []
    for clip in indices or uniform(24, 4, 2, clips):
        for view in crops(read_frames(path, clip), 32, 40, number):
            x = torch.from_numpy(np.ascontiguousarray(view)).float().permute(3, 0, 1, 2) / 255
            x = (x - torch.tensor(given.mean).view(3, 1, 1, 1)) / torch.tensor(given.std).view(3, 1, 1, 1)
            with torch.no_grad():
                probs.append(net(x[None]).softmax(1)[0].numpy())
    return np.mean(probs, 0)


def test_two_lines_of_python(checkpoint: Path, tmp_path: Path) -> None:
    video = write(tmp_path / "a.mp4")
    net = csn.load(checkpoint)
    for clips, number in ((1, 1), (2, 3)):
        told = csn.classify(net, video, clips=clips, crops=number, top=3)
        probs = expected(net, video, clips, number)
        assert [name for name, _ in told] == [NAMES[k] for k in np.argsort(-probs)]
        assert [p for _, p in told] == pytest.approx(sorted(probs, reverse=True), abs=1e-5)
    with pytest.raises(VideoError, match=r"none\.mp4 cannot be read: No such file"):
        csn.classify(net, tmp_path / "none.mp4")
    with pytest.raises(UserError, match=r"`--crops` \(=2\) must be 1 or 3"):
        csn.classify(net, video, crops=2)
    with pytest.raises(UserError, match="says nothing of its input"):
        csn.classify(csn.build(csn.Variant(depth=26, width=8), 3), video)


def test_a_network_is_left_as_it_is_and_names_are_given_to_its_own_classes_alone(checkpoint: Path, tmp_path: Path) -> None:
    video, net = write(tmp_path / "a.mp4"), csn.load(checkpoint).train()
    net.stem.eval()
    csn.classify(net, video, clips=1)
    assert net.training and net.head.training and not net.stem.training
    for top in (0, -1):
        with pytest.raises(UserError, match=rf"`top` \(={top}\) must be at least 1"):
            csn.classify(net, video, top=top)
    with pytest.raises(UserError, match=r"`stem.conv1.conv.weight` \(=torch.float16\) must be of torch.float32; call net.float\(\) first"):
        csn.classify(net.half(), video, clips=1)
    net.float().head.fc = torch.nn.Linear(net.head.fc.in_features, 2)
    with pytest.raises(UserError, match=r"`net` \(=2 classes\) must have the 3 of its file, whose names it would be given"):
        csn.classify(net, video, clips=1)


def test_a_video_smaller_than_the_crop_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    net = csn.load(small_checkpoint(tmp_path / "net.safetensors", given=replace(INPUT, short=None)))
    small, large = write(tmp_path / "small.mp4", size=(24, 32)), write(tmp_path / "large.mp4")
    first, second = answers(net, [small, large], protocol(net, 1), torch.device("cpu"))
    assert first.probs is None and first.why.startswith("`crop` (=32) is larger than its frames of 24 x 32; take it out") and second.probs is not None
    with pytest.raises(VideoError, match=r"small\.mp4 cannot be read: `crop` \(=32\) is larger than its frames of 24 x 32"):
        csn.classify(net, small)


def test_a_film_is_seen_at_the_rate_of_the_network_and_pictures_as_they_are(tmp_path: Path) -> None:
    """Every second frame at 25 a second: every fourth of a film of 50, the middle clip from 5 on. A folder of pictures has no rate."""
    net = csn.load(small_checkpoint(tmp_path / "net.safetensors", given=replace(INPUT, fps=25.0)))
    videos = {write(tmp_path / "slow.mp4"): [8, 10, 12, 14], write(tmp_path / "fast.mp4", fps=50): [5, 9, 13, 17]}
    for video, clip in (videos | {write_folder(tmp_path / "pictures", 24, size=(64, 96)): [8, 10, 12, 14]}).items():
        told = dict(csn.classify(net, video, clips=1))
        assert [told[name] for name in NAMES] == pytest.approx(expected(net, video, 1, 1, [clip]).tolist(), abs=1e-5), video


def test_files_folders_and_lists(tmp_path: Path) -> None:
    for name in ("in/a.mp4", "in/deep/b.webm", "c.avi"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    pictures = write_folder(tmp_path / "pictures", 3)
    (tmp_path / "list.txt").write_text("in/a.mp4\n\nc.avi\n")
    found = videos_of([tmp_path / "in", tmp_path / "c.avi", tmp_path / "list.txt", pictures])
    assert [path.relative_to(tmp_path).as_posix() for path in found] == ["in/a.mp4", "in/deep/b.webm", "c.avi", "in/a.mp4", "c.avi", "pictures"]
    (tmp_path / "empty.txt").touch()
    with pytest.raises(UserError, match="No video in"):
        videos_of([tmp_path / "empty.txt"])


def test_a_damaged_video_is_named_and_the_others_go_on(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "a.mp4")
    (tmp_path / "b.mp4").write_bytes((tmp_path / "a.mp4").read_bytes()[:300])
    write_folder(tmp_path / "c", 9)
    arguments = [str(tmp_path), "--checkpoint", str(checkpoint), "--views", "1", "--top", "2"]
    assert main(arguments) == 1
    out, err = capsys.readouterr()
    for part in (
        f"checkpoint: {checkpoint}", "network: ip-CSN-26 (block ip, width 8)", "format: ours, sha256", "device: cpu",
        "views: 1 clips x centre crop of 32 x 32, short side 40", "clip: 4 frames at stride 2", "b.mp4: not classified: ", "c\n",
    ):  # fmt: skip
        assert part in out, out
    assert out.count(" %  ") == 4 and f"1 of 3 videos could not be classified: {tmp_path / 'b.mp4'}" in err
    assert main([*arguments, "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert [bool(video["error"]) for video in told["videos"]] == [False, True, False] and told["clip"] == "4 frames at stride 2"
    assert main([*arguments, "--csv"]) == 1
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["rank"] for row in rows] == ["1", "2", "", "1", "2"]
    assert rows[0]["name"] == told["videos"][0]["classes"][0]["name"] and float(rows[0]["probability"]) >= 1 / 3


def test_what_the_views_leave_out_is_told(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = write(tmp_path / "whole.mkv", 200, g="12").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(content[: len(content) // 2])
    assert main([str(tmp_path), "--checkpoint", str(checkpoint), "--views", "1", "--json"]) == 0
    cut, whole = json.loads(capsys.readouterr().out)["videos"]
    assert cut["note"].startswith("ends early") and cut["classes"] and whole["note"] is None
    plain = small_checkpoint(tmp_path / "plain.safetensors", given=replace(INPUT, short=None))
    arguments = [str(tmp_path / "whole.mkv"), "--checkpoint", str(plain), "--views", "1"]
    told = "crops of 32 x 32 show 17 % of its frames of 64 x 96"
    assert main(arguments) == 0 and f"\n  note: {told}\n" in capsys.readouterr().out
    assert main([*arguments, "--csv"]) == 0
    assert {row["note"] for row in csv.DictReader(io.StringIO(capsys.readouterr().out))} == {told}
    assert main([*arguments, "--crops", "3"]) == 0 and "note: crops" not in capsys.readouterr().out  # half of it


def test_a_file_name_that_is_no_text_is_told_escaped(checkpoint: Path, tmp_path: Path) -> None:
    write(tmp_path / "a.mp4").rename(tmp_path / os.fsdecode(b"\xff.mp4"))
    for form in ([], ["--json"], ["--csv"]):
        done = run("-m", "csn.predict", tmp_path, "--checkpoint", checkpoint, "--views", "1", *form)
        assert done.returncode == 0 and "xff.mp4" in done.stdout, done.stderr


def test_names_of_classes_from_a_file_and_numbers_without_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from csn.checkpoints.network import write as write_network
    from csn.checkpoints.reading import read

    facts, state = read(small_checkpoint(tmp_path / "net.safetensors"))
    write_network(tmp_path / "bare.safetensors", replace(facts, classes=()), state)
    video = write(tmp_path / "a.mp4")
    arguments = [str(video), "--checkpoint", str(tmp_path / "bare.safetensors"), "--views", "1", "--csv"]
    assert main(arguments) == 0
    assert sorted(row["name"] for row in csv.DictReader(io.StringIO(capsys.readouterr().out))) == ["0", "1", "2"]
    (tmp_path / "names.txt").write_text("eins\nzwei\ndrei\n")
    assert main([*arguments, "--classes", str(tmp_path / "names.txt")]) == 0
    assert sorted(row["name"] for row in csv.DictReader(io.StringIO(capsys.readouterr().out))) == ["drei", "eins", "zwei"]


def test_the_statistics_asked_for_are_those_that_the_network_is_shown(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video, told = write(tmp_path / "a.mp4"), []
    for more in ([], ["--statistics", "imagenet"]):
        assert main([str(video), "--checkpoint", str(checkpoint), "--json", *more]) == 0
        told.append({one["name"]: one["probability"] for one in json.loads(capsys.readouterr().out)["videos"][0]["classes"]})
    assert max(abs(told[0][name] - told[1][name]) for name in NAMES) > 1e-3
    imagenet = replace(INPUT, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))  # as torchvision's pictures have them
    assert [told[1][name] for name in NAMES] == pytest.approx(expected(csn.load(checkpoint), video, 3, 1, given=imagenet).tolist(), abs=1e-5)


def test_wrong_options_are_one_sentence(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video = str(write(tmp_path / "a.mp4"))
    for more, sentence in (
        (["--device", "tpu"], "`--device` (=tpu) must be cpu, cuda or cuda:N."),
        (["--device", "cuda:99"], "`--device` (=cuda:99) is not on this machine"),
        (["--views", "0"], "`--views` (=0) must be at least 1."),
        (["--top", "0"], "`--top` (=0) must be at least 1."),
        (["--classes", video], "cannot be read as UTF-8"),
        (["--classes", str(tmp_path / "none.txt")], "none.txt; check its name."),
    ):
        assert main([video, "--checkpoint", str(checkpoint), *more]) == 2
        assert sentence in capsys.readouterr().err
    assert "is refused: it begins with" in refused(run("-m", "csn.predict", video, "--checkpoint", video))


def test_three_crops_are_more_views_and_who_stops_reading_gets_no_traceback(checkpoint: Path, tmp_path: Path) -> None:
    for name in "abcdef":
        write(tmp_path / f"{name}.mp4", 12, (40, 56))
    command = ("-m", "csn.predict", tmp_path / "a.mp4", "--checkpoint", checkpoint, "--views", "2", "--json", "--crops")
    one, three = (json.loads(run(*command, number).stdout) for number in "13")
    assert one["views"] != three["views"] and one["videos"][0]["classes"] != three["videos"][0]["classes"]
    script = f"{sys.executable} -m csn.predict {tmp_path} --checkpoint {checkpoint} --views 1 | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "Traceback" not in done.stderr and "BrokenPipe" not in done.stderr


def test_progress_counts_views(checkpoint: Path, tmp_path: Path) -> None:
    net, ticks = csn.load(checkpoint), []
    paths = [write(tmp_path / "a.mp4"), tmp_path / "none.mp4", write(tmp_path / "b.mp4")]
    found = list(answers(net, paths, protocol(net, clips=2, crops=3), torch.device("cpu"), lambda *now: ticks.append(now)))
    assert ticks == [(4, 18), (6, 18), (12, 18), (16, 18), (18, 18)]
    assert [answer.why for answer in found] == ["", "No such file or directory.", ""]


@pytest.mark.parametrize("form", ["", "--csv", "--json"])
def test_an_interruption_loses_no_answer(
    form: str, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    videos = [str(write(tmp_path / f"{name}.mp4")) for name in "ab"]

    def one_only(*given: Any) -> Iterator[Answer]:
        yield next(answers(*given))
        raise KeyboardInterrupt

    monkeypatch.setattr("csn.predict.answers", one_only)
    assert main([*videos, "--checkpoint", str(checkpoint), "--views", "1", "--statistics", "imagenet", *filter(None, [form])]) == 130
    out, err = capsys.readouterr()
    assert "a.mp4" in out and "b.mp4" not in out and "Interrupted after 1 videos; their answers are printed." in err
    assert form != "--json" or len(json.loads(out)["videos"]) == 1


@pytest.mark.skipif(not os.environ.get("CSN_TEST_CLIPS"), reason="CSN_TEST_CLIPS is not set")
def test_a_real_clip(checkpoint: Path) -> None:
    video = Path(os.environ["CSN_TEST_CLIPS"]) / "real" / "flipping_a_pancake.mkv"
    done = run("-m", "csn.predict", video, "--checkpoint", checkpoint)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(" %  ") == 3 and "views: 3 clips x centre crop" in done.stdout
