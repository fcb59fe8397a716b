"""MovingDigits: what is read is what was drawn, train and test share no handwriting, a half-made set is completed."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import run
from made_sets import FICKLE, fickle

from csn.data import moving_digits as md
from csn.data.embedded import processes
from csn.data.loader import load, reader_of
from csn.data.sets import drawn
from csn.data.video import probe, read_frames
from csn.recipes import SMALL, SMOKE
from csn.spec import MovingDigits, UserError

SPEC = MovingDigits(train=80, test=80, frames=10)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return md.make(SPEC, tmp_path_factory.mktemp("digits"), workers=2)


@pytest.mark.parametrize("index", [0, 9, 21, 37, 46, 55, 63, 79])
def test_what_is_read_is_what_was_drawn(folder: Path, index: int) -> None:
    """Each frame read differs from the frame drawn by coding noise only, far less than from its neighbours."""
    path, made = folder / md.relative("train", index), md.draw(SPEC, "train", index).astype(float)
    read = read_frames(path, range(SPEC.frames)).astype(float)
    assert read.shape == made.shape == (10, 40, 40, 3)
    assert np.abs(read - made).mean() < 5
    # in grey: the files store colour at half the resolution
    distance = np.abs(read.mean(3)[:, None] - made.mean(3)[None]).mean((2, 3))
    assert (distance.argmin(1) == np.arange(SPEC.frames)).all()


def test_files_can_be_read_in_any_order_by_the_fast_reader(folder: Path) -> None:
    path = folder / md.relative("test", 5)
    assert probe(path).reader == "decord"
    order = [7, 0, 9, 3, 3, 8]
    assert (read_frames(path, order) == md.read_whole(SPEC, folder, md.relative("test", 5))[order]).all()


def test_the_set_of_committed_results_stays_as_it_is(folder: Path) -> None:
    """Folder names, and the pixels of a video of scale small summed by channel; processors may round a few differently."""
    assert folder.name == "moving-digits-2917fe1986"
    for split, index, sums in (("train", 437, (2598952, 3411302, 2321463)), ("test", 411, (4361563, 4965093, 4276399))):
        video = md.draw(SMALL.data, split, index)
        assert np.abs(video.astype(int).sum((0, 1, 2)) - sums).max() < 20


def test_classes_are_balanced_and_named(folder: Path) -> None:
    split = md.load(SPEC, folder.parent, "test")
    assert [sample.labels[0] for sample in split.samples] == list(range(80))
    assert len(split.classes) == 80 and split.classes[:2] == ("0 left", "0 right") and split.classes[-1] == "9 shrink"
    assert split.samples[13].path.parent.name == "1-clockwise" or split.samples[12].path.parent.name == "1-clockwise"


def test_fewer_digits_are_fewer_classes(tmp_path: Path) -> None:
    """The first so many of the ten; every class has the same share of both splits."""
    spec = MovingDigits(train=32, test=16, frames=10, digits=2)
    assert spec.classes == 16 and drawn(spec) is md.SETS[16]
    split = drawn(spec).load(spec, tmp_path, "train")
    assert split.classes == md.CLASSES[:16] and split.classes[-1] == "1 shrink"
    assert [sample.labels[0] for sample in split.samples] == [*range(16), *range(16)]
    assert {sample.path.parent.name for sample in split.samples} == {name.replace(" ", "-") for name in split.classes}
    again = md.draw(spec, "train", 17)
    assert (again == md.draw(spec, "train", 17)).all() and (again != md.draw(SPEC, "train", 17)).any()


def test_a_whole_set_is_used_where_nothing_can_be_written(folder: Path, tmp_path: Path) -> None:
    there = tmp_path / folder.name
    shutil.copytree(folder, there)
    frames = md.decoded(SPEC, tmp_path, "test", workers=2)
    (there / "lock").unlink()
    (there / "lock").mkdir()  # as a folder that is read-only refuses it
    assert md.make(SPEC, tmp_path) == there and (md.decoded(SPEC, tmp_path, "test") == frames).all()
    (there / md.relative("train", 3)).unlink()
    with pytest.raises(UserError, match=r"Cannot write the folder .*; give another with --data"):
        md.make(SPEC, tmp_path)


def test_a_damaged_film_is_named_with_the_remedy(folder: Path, tmp_path: Path) -> None:
    there = tmp_path / folder.name
    shutil.copytree(folder, there, ignore=shutil.ignore_patterns("*.npy"))
    film = there / md.relative("test", 7)
    film.write_bytes(bytes(film.stat().st_size))  # its size is that of the manifest
    with pytest.raises(UserError, match=rf"Video {film} cannot be read: .* Delete that file: the same command writes it again\."):
        md.decoded(SPEC, tmp_path, "test", workers=2)
    film.unlink()
    assert len(md.decoded(SPEC, tmp_path, "test", workers=2)) == SPEC.test and not list(there.glob(".*.npy"))


def test_train_and_test_share_no_handwriting() -> None:
    for digit in range(10):
        train, test = ({glyph.tobytes() for glyph in md.handwriting(split)[digit]} for split in md.SPLITS)
        assert len(train) > 100 and len(test) > 40
        assert not train & test


@pytest.mark.parametrize(("motion", "axis", "sign"), [("left", 1, -1), ("right", 1, 1), ("up", 0, -1), ("down", 0, 1)])
def test_motions_move_as_named(motion: str, axis: int, sign: int) -> None:
    """The centre of the bright digit moves as its class says."""
    spec = MovingDigits(train=80, test=80, frames=10, noise=0, texture=0)
    index = 8 * 1 + md.MOTIONS.index(motion)
    video = md.draw(spec, "train", index).astype(float).mean(3)
    mass = np.clip(video - np.median(video), 0, None)
    centre = (mass * np.indices((40, 40))[axis]).sum((1, 2)) / mass.sum((1, 2))
    assert sign * (centre[-1] - centre[0]) > 4


def test_growing_and_turning() -> None:
    spec = MovingDigits(train=80, test=80, frames=10, noise=0, texture=0)
    for motion, more in (("grow", True), ("shrink", False)):
        video = md.draw(spec, "train", md.MOTIONS.index(motion)).astype(float).mean(3)
        mass = np.clip(video - np.median(video), 0, None).sum((1, 2))
        large, small = (mass[-1], mass[0]) if more else (mass[0], mass[-1])
        assert large > 1.4 * small
    turning = md.draw(spec, "train", 8 + md.MOTIONS.index("clockwise")).astype(float).mean(3)
    mass = np.clip(turning - np.median(turning), 0, None)
    assert np.abs(mass[-1] - mass[0]).sum() > 0.3 * mass[0].sum()
    assert mass[-1].sum() == pytest.approx(mass[0].sum(), rel=0.1)


def test_every_video_is_drawn_from_its_own_seed() -> None:
    assert (md.draw(SPEC, "train", 3) == md.draw(SPEC, "train", 3)).all()
    assert (md.draw(SPEC, "train", 3) != md.draw(SPEC, "train", 83)).any()
    assert (md.draw(SPEC, "train", 3) != md.draw(SPEC, "test", 3)).any()
    assert (md.draw(SPEC, "train", 3) != md.draw(MovingDigits(train=80, test=80, frames=10, seed=1), "train", 3)).any()


def test_a_half_made_set_is_completed_with_the_same_files(folder: Path) -> None:
    before = md.read_manifest(folder)
    gone, cut = folder / md.relative("train", 7), folder / md.relative("test", 11)
    gone.unlink()
    cut.write_bytes(cut.read_bytes()[:500])
    intact = folder / md.relative("train", 8)
    stamp = intact.stat().st_mtime_ns
    seen: list[tuple[int, int]] = []
    md.make(SPEC, folder.parent, workers=1, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(159, 162), (160, 162), (161, 162), (162, 162)]  # written, then encoded once more
    assert md.read_manifest(folder) == before
    assert intact.stat().st_mtime_ns == stamp
    os.remove(folder / "manifest.json")  # noqa: PTH107
    md.make(SPEC, folder.parent, workers=2)
    assert md.read_manifest(folder) == before


def test_the_decoded_copy_is_the_files(folder: Path) -> None:
    array = md.decoded(SPEC, folder.parent, "train", workers=2)
    assert array.shape == (80, 10, 40, 40, 3) and not array.flags.writeable
    assert (array[21] == read_frames(folder / md.relative("train", 21), range(10))).all()


def test_a_decoded_copy_that_was_copied_in_part_is_made_anew(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / folder.name)
    whole = np.array(md.decoded(SPEC, tmp_path, "test", workers=2))
    (copy,) = (tmp_path / folder.name).glob("test-*.npy")
    for left in (0, 60, 10_000):
        os.truncate(copy, left)
        assert np.array_equal(md.decoded(SPEC, tmp_path, "test", workers=2), whole)


def test_a_split_that_a_set_has_not_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"`split` \(=val\) must be train or test"):
        load(SMOKE, tmp_path, "val")


def test_the_reader_of_a_recipe_gives_frames_of_the_right_video(data: Path) -> None:
    splits = {name: load(SMOKE, data, name) for name in ("train", "test")}
    reader = reader_of(SMOKE, data, splits)
    sample = splits["test"].samples[30]
    assert reader.length(sample) == 10
    assert (reader.frames(sample, np.array([4, 1])) == read_frames(sample.path, [4, 1])).all()


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"Cannot write the folder .* give another with --data"):
        md.make(SPEC, tmp_path / "file" / "below")


@pytest.mark.parametrize("made", [False, True])
def test_a_script_without_a_main_block_is_told_of_it(made: bool, folder: Path, tmp_path: Path) -> None:
    """Its processes read it anew, come to the same call, and waited for ever for the folder that the first one holds."""
    if made:  # but not decoded
        shutil.copytree(folder, tmp_path / folder.name, ignore=shutil.ignore_patterns("*.npy"))
    script = tmp_path / "mine.py"
    work = f"SET.decoded(MovingDigits(train={SPEC.train}, test={SPEC.test}, frames={SPEC.frames}), Path({str(tmp_path)!r}), 'train', 2)"
    script.write_text(f"from pathlib import Path\nfrom csn.data.moving_digits import SET\nfrom csn.spec import MovingDigits\nprint({work}.shape)\n")
    refused = run(str(script))
    assert refused.returncode == 1 and f"UserError: {tmp_path / folder.name} is made by several processes" in refused.stderr
    assert refused.stderr.splitlines()[-1].startswith("csn.rules.UserError: A process that writes or reads videos ended")
    script.write_text(script.read_text().replace("print(", "if __name__ == '__main__':\n    print("))
    assert run(str(script)).stdout == "(80, 10, 40, 40, 3)\n"


def test_small_scale_sets_differ_in_name_and_fingerprint(folder: Path) -> None:
    assert SMALL.data != SPEC
    assert md.fingerprint(md.read_manifest(folder)) != md.fingerprint({"a": (1, "b")})


def test_a_film_that_came_out_otherwise_is_made_again_until_two_agree(folder: Path, tmp_path: Path) -> None:
    """The encoder's rare other answer must not stay: the file is the one that two attempts gave."""
    job = ("train", 5)
    name, good = md.relative(*job), (folder / md.relative(*job)).read_bytes()
    sha = hashlib.sha256(good).hexdigest()
    for seen in ({"one that came once", sha}, {"one", "another"}):  # agreed at the first attempt, at the second
        (tmp_path / name).unlink(missing_ok=True)
        assert md.SET.settle(SPEC, tmp_path, job, seen) == (len(good), sha)
        assert (tmp_path / name).read_bytes() == good and sha in seen
    assert sha in (in_a_new_process(job) for _ in range(3))  # the other answer is as rare here


def test_a_film_that_came_out_otherwise_is_found_when_a_set_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = MovingDigits(train=16, test=16, frames=4, digits=2)
    monkeypatch.setenv("CSN_TEST_FLAG", str(tmp_path / "flag"))
    made = replace(md.SETS[16], draw=fickle).make(spec, tmp_path)
    path = made / md.SETS[16].relative("train", FICKLE)
    assert (tmp_path / "flag").exists() and np.abs(read_frames(path, range(4)).astype(float) - md.draw(spec, "train", FICKLE)).mean() < 5
    assert md.read_manifest(made)[md.SETS[16].relative("train", FICKLE)] == (path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest())


def in_a_new_process(job: tuple[str, int]) -> str:
    """SHA-256 of a film encoded once more, for an encoder that gave its other answer gives it again in the same process."""
    with processes(1) as pool:
        return pool.submit(md.SET.make_again, SPEC, job).result()


def own_handlers(_: int) -> list[object]:
    return [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2, signal.SIGHUP)]


def test_processes_that_draw_leave_signals_to_the_one_they_serve() -> None:
    """A cancelled job's come to all of them, and one that dies of it looks like a crash."""
    with processes(1) as pool:
        assert pool.submit(own_handlers, 0).result() == [signal.SIG_IGN] * 4
