"""The table scripts as a person uses them: from nothing to a verdict, and every mistake one clear sentence."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import refused, run

from csn.collect import read_lines
from csn.files import held
from csn.plan import state_of
from csn.provenance import REPOSITORY
from csn.recipes import SMOKE
from csn.records import folder_of, read_record
from csn.spec import Run, Variant

SCRIPT = "experiments/table3_groups.py"
SMOKE_FLAGS = ("--scale", "smoke", "--seeds", "0")


def run_of(row: str) -> Run:
    block = {"simple": ("simple", 18), "simple-D": ("simple-D", 18), "ip": ("ip", 26)}[row]
    return Run(variant=Variant(block=block[0], depth=block[1], width=8), recipe=SMOKE, seed=0)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """A home in which two rows were run by the command itself."""
    place = tmp_path_factory.mktemp("home")
    done = run(SCRIPT, *SMOKE_FLAGS, "--only", "simple", "simple-D", "--home", place, "--data", data)
    assert done.returncode == 0, done.stdout + done.stderr
    (place / "printed.txt").write_text(done.stdout)
    return place


def test_from_nothing_to_a_table_a_csv_and_a_figure(home: Path) -> None:
    text = (home / "printed.txt").read_text()
    assert "2 runs at scale smoke" in text and "[2/2]" in text
    assert "Claims" in text and "undecided" in text
    lines = read_lines(home / "results" / "smoke" / "table3_groups.csv")
    assert [(line["row"], line["seed"], line["n_videos"]) for line in lines] == [("simple", "0", "80"), ("simple-D", "0", "80")]
    assert all(line["video_top1"] and line["train_top1"] and line["clip_top1"] and line["seconds"] and not line["error"] for line in lines)
    assert (home / "results" / "smoke" / "table3_groups.png").stat().st_size > 10_000
    assert max(map(len, (line for line in text.splitlines() if not line.startswith(("figure:", "results:"))))) <= 80


def test_a_second_call_runs_nothing_and_shows_the_same(home: Path) -> None:
    csv = home / "results" / "smoke" / "table3_groups.csv"
    before = csv.read_bytes()
    done = run(SCRIPT, *SMOKE_FLAGS, "--only", "simple", "simple-D", "--home", home)
    assert done.returncode == 0 and "Nothing is missing." in done.stdout
    assert csv.read_bytes() == before


def test_plan_and_show(home: Path) -> None:
    plan = run(SCRIPT, "--plan", "--scale", "smoke", "--seeds", "0", "1", "--home", home)
    assert plan.returncode == 0
    assert "done 0, missing 1" in plan.stdout and "40 runs: 2 done, 38 missing" in plan.stdout
    assert "Estimated time for what is missing" in plan.stdout and ", by runs on " in plan.stdout and "unknown" not in plan.stdout
    show = run(SCRIPT, "--show", "--scale", "smoke", "--home", home)
    assert show.returncode == 0 and "simple-D" in show.stdout and not (home / "runs" / "x").exists()


def test_a_fresh_home_gives_the_same_line_to_the_last_digit(home: Path, data: Path, tmp_path: Path) -> None:
    done = run(SCRIPT, *SMOKE_FLAGS, "--only", "simple-D", "--home", tmp_path, "--data", data, "--jobs", "1")
    assert done.returncode == 0
    [again] = read_lines(tmp_path / "results" / "smoke" / "table3_groups.csv")
    first = read_lines(home / "results" / "smoke" / "table3_groups.csv")[1]
    assert {k: v for k, v in again.items() if k != "seconds"} == {k: v for k, v in first.items() if k != "seconds"}
    names = [folder_of(run_of("simple-D"), place) / "weights.safetensors" for place in (home, tmp_path)]
    assert names[0].read_bytes() == names[1].read_bytes()


def test_deleting_a_line_makes_a_cell_empty(home: Path, tmp_path: Path) -> None:
    """Results that came with a clone: lines without records are shown, and count as done."""
    target = tmp_path / "results" / "smoke" / "table3_groups.csv"
    target.parent.mkdir(parents=True)
    lines = (home / "results" / "smoke" / "table3_groups.csv").read_text().splitlines(keepends=True)
    target.write_text("".join(lines[:2]))
    show = run(SCRIPT, "--show", "--scale", "smoke", "--home", tmp_path)
    assert show.returncode == 0, show.stderr
    assert target.read_text() == "".join(lines[:2])
    plan = run(SCRIPT, "--plan", *SMOKE_FLAGS, "--only", "simple", "simple-D", "--home", tmp_path)
    assert "1 missing, 1 published" in plan.stdout
    target.write_text(lines[0] + lines[1].replace(",smoke-", ",smoke-other-"))  # of another recipe
    show = run(SCRIPT, "--show", "--scale", "smoke", "--home", tmp_path)
    aside = target.with_name("table3_groups_superseded.csv")
    assert show.returncode == 0 and "are left out: 1." in " ".join(show.stdout.split()) and f"They were moved to {aside}" in show.stdout
    assert "smoke-other-" in aside.read_text() and target.read_text() == lines[0]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--only", "dense"), ("unknown row (=dense)", "bottleneck-DG4", "ip-50")),
        (("--scale", "huge"), ("`--scale` (=huge)", "smoke, small")),
        (("--device", "tpu", "--scale", "smoke"), ("`--device` (=tpu)", "cpu, cuda or cuda:N")),
        (("--plan", "--device", "cuda:foo"), ("`--device` (=cuda:foo)", "cpu, cuda or cuda:N")),
        (("--submit", "--plan", "--device", "cpu"), ("Argument --device: goes with runs on this machine", "--profile")),
        (("--show", "--jobs", "0"), ("Argument --jobs: goes with runs on this machine",)),
        (("--data", "x" * 300), ("x" * 300, "cannot be reached (File name too long)")),
        (("--jobs", "0", "--scale", "smoke"), ("`--jobs` (=0)", "at least 1")),
        (("--seeds", "0", "-1"), ("`--seeds` (=-1)", "at least 0")),
        (("--device", "cuda:7", "--scale", "smoke", "--only", "simple"), ("`--device` (=cuda:7) is not on this machine",)),
        (("--seeds", "one"), ("Argument --seeds", "'one'", "--help")),
        (("--fast",), ("--fast", "--help")),
        (("--plan", "--show"), ("--plan", "alone or with --submit")),
        (("--show", "--status"), ("not allowed with",)),
        (("--submit", "--profile", "none"), ("none", "gpu, local, paper")),
        (("--plan", "--profile", "gpu"), ("Argument --profile: goes with --submit",)),
        (("--data", "/etc/passwd", "--scale", "medium"), ("`--data` (=/etc/passwd) must be a folder",)),
        (("--dirty",), ("Argument --dirty: goes with --submit",)),
        (("--show", "--json"), ("Argument --json: goes with --status",)),
    ],
)
def test_wrong_flags(flags: tuple[str, ...], words: tuple[str, ...], tmp_path: Path) -> None:
    sentence = refused(run(SCRIPT, *flags, "--home", tmp_path))
    assert all(word in sentence for word in words), sentence


def test_an_unwritable_home(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for flags in (SMOKE_FLAGS, ("--plan",), ("--show",)):
        sentence = refused(run(SCRIPT, *flags, "--home", tmp_path / "file"))
        assert "`--home`" in sentence and "must be a folder, and is a file" in sentence
    for command in ((SCRIPT, "--show"), ("-m", "csn.claims"), ("-m", "csn.report")):
        assert "`--home` (=/none) must be a folder that is there" in refused(run(*command, "--home", "/none"))
        assert "Argument --home: must name a folder, and is empty" in refused(run(*command, "--home", ""))
    sentence = refused(run(SCRIPT, *SMOKE_FLAGS, "--home", "/proc/none"))
    assert "`--home` (=/proc/none) cannot be written" in sentence and "give another folder" in sentence


def test_a_damaged_record_is_named(home: Path, tmp_path: Path) -> None:
    shutil.copytree(home / "runs", tmp_path / "runs")
    record = folder_of(run_of("simple"), tmp_path) / "record.json"
    record.write_text(record.read_text()[:100])
    done = run(SCRIPT, "--show", "--scale", "smoke", "--home", tmp_path)
    sentence = refused(done)
    assert str(record) in sentence and "delete it" in sentence
    assert "simple-D" in done.stdout
    done = run(SCRIPT, "--plan", "--scale", "smoke", "--home", tmp_path)
    assert "1 damaged" in done.stdout and "--status names the damaged records" in done.stdout
    done = run(SCRIPT, "--status", "--only", "simple", "simple-D", "--seeds", "0", "--scale", "smoke", "--home", tmp_path)
    assert done.returncode == 0 and "1 of 2 done" in done.stdout and "delete it" in " ".join(done.stdout.split()), done.stderr


@pytest.mark.parametrize("setting", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}], ids=["terminal", "locale"])
def test_what_a_terminal_cannot_show_is_shown_as_a_question_mark(tmp_path: Path, setting: dict[str, str]) -> None:
    done = run(SCRIPT, "--show", "--only", "bottleneck", "--scale", "smoke", "--home", tmp_path, **setting)
    assert done.returncode == 0 and "65.3?" in done.stdout, done.stderr


def test_two_processes_on_one_run(tmp_path: Path, data: Path) -> None:
    with held(folder_of(run_of("ip"), tmp_path)):
        done = run(SCRIPT, *SMOKE_FLAGS, "--only", "ip", "simple", "--home", tmp_path, "--data", data)
    sentence = refused(done)
    assert "ip seed 0: smoke-ip-26" in sentence and "is being worked on" in sentence and f"process {os.getpid()}" in sentence
    assert "/2] ip seed 0: smoke-ip-26" in done.stdout and "ip seed 0: ip seed 0" not in done.stdout
    assert [line["row"] for line in read_lines(tmp_path / "results" / "smoke" / "table3_groups.csv")] == ["simple"]


def test_control_c_saves_and_says_how_to_resume(tmp_path: Path, data: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, SCRIPT, *SMOKE_FLAGS, "--only", "simple", "ip", "--home", str(tmp_path), "--data", str(data)]
    process = subprocess.Popen(command, cwd=REPOSITORY, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not list(tmp_path.glob("runs/*/progress.json")):
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the command and its runs
    out, err = process.communicate(timeout=280)
    assert process.returncode == 2, out + err
    assert "Interrupted; every run has saved its state, the same command goes on from there." in " ".join(err.split())
    assert "Traceback" not in err
    done = run(*command[1:])
    assert done.returncode == 0, done.stderr
    assert len(read_lines(tmp_path / "results" / "smoke" / "table3_groups.csv")) == 2


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGKILL])  # SIGTERM is heard as SIGHUP is
def test_who_ends_the_command_while_data_is_written_leaves_no_process(tmp_path: Path, number: signal.Signals) -> None:
    """A signal to the command alone: the processes that draw do not get it."""
    command = [sys.executable, SCRIPT, *SMOKE_FLAGS, "--only", "ip", "--home", str(tmp_path)]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not list(tmp_path.glob("data/*/train/*/*.mp4")):
        time.sleep(0.02)
    process.send_signal(number)
    out, err = process.communicate(timeout=120)
    if number == signal.SIGKILL:
        assert process.returncode == -number
    else:
        assert process.returncode == 2 and "Interrupted; the same command goes on from there." in err and "Traceback" not in err, out + err
    while time.monotonic() < deadline + 60:
        try:
            os.killpg(process.pid, 0)  # what is dead stays in its group until somebody reaps it
        except ProcessLookupError:
            break
        time.sleep(0.1)
    else:
        pytest.fail("processes are left")
    assert not list(tmp_path.glob("data/*/manifest.json"))


@pytest.mark.parametrize("flags", ["--status --json", "--show", "--plan"])
def test_who_stops_reading_gets_no_traceback(flags: str, tmp_path: Path) -> None:
    script = f"{sys.executable} {SCRIPT} {flags} --scale smoke --home {tmp_path} | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "")


def test_a_row_that_the_scale_cannot_hold_is_not_called_done(tmp_path: Path) -> None:
    done = run("experiments/table2_interactions.py", "--only", "ResNet3D-101", "--scale", "small", "--home", tmp_path)
    assert done.returncode == 0 and "Nothing is missing" not in done.stdout and "depth 101 is too deep for scale small" in " ".join(done.stdout.split())


def test_a_killed_run_is_named_and_resumes(tmp_path: Path, data: Path) -> None:
    command = [sys.executable, SCRIPT, *SMOKE_FLAGS, "--only", "ip", "--home", str(tmp_path), "--data", str(data)]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    progress = folder_of(run_of("ip"), tmp_path) / "progress.json"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not progress.exists():
        time.sleep(0.02)
    os.kill(json.loads(progress.read_text())["pid"], signal.SIGKILL)
    _, err = process.communicate(timeout=280)
    assert process.returncode == 2 and "ip seed 0 was killed by SIGKILL" in err and "nothing was saved yet; try again" in " ".join(err.split())
    record = read_record(run_of("ip"), tmp_path)
    assert record is not None and record["error"] == "killed by SIGKILL (out of memory, perhaps)" and record["retry"]
    (line,) = read_lines(tmp_path / "results" / "smoke" / "table3_groups.csv")
    assert line["error"] == record["error"] and line["video_top1"] == ""
    assert state_of(run_of("ip"), tmp_path, {record["run"]}) in ("resumable", "missing")
    assert run(*command[1:]).returncode == 0
    assert state_of(run_of("ip"), tmp_path, set()) == "done"


@pytest.mark.skipif(sys.platform != "linux", reason="a process learns of its parent's end on Linux only")
def test_a_killed_command_leaves_no_run_behind(tmp_path: Path, data: Path) -> None:
    command = [sys.executable, SCRIPT, *SMOKE_FLAGS, "--only", "ip", "--home", str(tmp_path), "--data", str(data)]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    folder = folder_of(run_of("ip"), tmp_path)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (folder / "progress.json").exists():
        time.sleep(0.02)
    process.kill()
    process.wait()
    with held(folder, wait=True):  # the run goes on no more; it says so when it has let go
        ended = lambda: "the state is saved" in (folder / "log.txt").read_text() or (folder / "record.json").exists()
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not ended():
            time.sleep(0.02)
        assert ended()


@pytest.mark.parametrize(("facts", "state"), [({}, "done"), ({"error": "nan"}, "failed"), ({"error": "disk", "retry": True}, "missing")])
def test_the_state_of_a_run_is_that_of_its_record(tmp_path: Path, facts: dict[str, object], state: str) -> None:
    one, folder = run_of("ip"), folder_of(run_of("ip"), tmp_path)
    folder.mkdir(parents=True)
    (folder / "record.json").write_text(json.dumps({"run": one.name, **facts}))
    assert state_of(one, tmp_path, set()) == state
    (folder / "record.json").write_text("{")
    assert state_of(one, tmp_path, set()) == "damaged"


@pytest.mark.parametrize("cell", ["abc", "nan"])
def test_a_cell_that_is_no_number_is_named(cell: str, tmp_path: Path) -> None:
    target = tmp_path / "results" / "small" / "table4_regularization.csv"
    target.parent.mkdir(parents=True)
    head, first, *_ = (REPOSITORY / "results" / "small" / target.name).read_text().splitlines()
    place = head.split(",").index("video_top1")
    target.write_text("\n".join([head, ",".join(cell if i == place else one for i, one in enumerate(first.split(",")))]))
    sentence = refused(run("experiments/table4_regularization.py", "--show", "--home", tmp_path))
    assert sentence.replace("\n", "") == f"error: Line 2 of {target} is damaged (its video_top1 is {cell!r}); mend or delete it."


def test_table1_needs_no_training(tmp_path: Path) -> None:
    done = run("experiments/table1_architectures.py", "--home", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "96.7" not in done.stdout and "14.322  14.322" in done.stdout and "8x112x112" in done.stdout
    assert max(map(len, done.stdout.splitlines()[:-1])) <= 80
    table = (tmp_path / "results" / "paper" / "table1_architectures.csv").read_text().splitlines()
    assert len(table) == 15 and table[0].startswith("table,row,scale,block,depth")
    first = dict(zip(table[0].split(","), table[1].split(","), strict=True))
    norms = 64 + 4 * (64 + 128 + 256 + 512) + (128 + 256 + 512)  # channels of the stem, of four convolutions a stage, of three projections
    assert (first["row"], first["gmacs"], first["params_m"], first["interactions_g"]) == ("simple-18", "22.472630", "33.361472", "0.267739")
    assert float(first["params_all_m"]) == pytest.approx(33.361472 + (2 * norms + 400) / 1e6, abs=1e-9)  # and the classifier's biases
    plan = run("experiments/table1_architectures.py", "--plan", "--home", tmp_path)
    assert plan.returncode == 0 and "no training" in plan.stdout
    small = run("experiments/table1_architectures.py", "--scale", "small", "--only", "simple-18", "--home", tmp_path)
    assert small.returncode == 0 and "width 16" in small.stdout
    assert "Table 1: architectures trains nothing" in refused(run("experiments/table1_architectures.py", "--status", "--home", tmp_path))


def test_submit_plan_prints_the_header_without_submitting(tmp_path: Path) -> None:
    done = run(SCRIPT, "--submit", "--plan", "--scale", "smoke", "--home", tmp_path, "--profile", "gpu")
    assert done.returncode == 0, done.stderr
    assert "#SBATCH --array=0-19%8" in done.stdout and "20 runs" in done.stdout and "GPU-hours" in done.stdout
    assert not (tmp_path / "submissions").exists()


def test_submit_says_what_it_leaves_out_as_published(tmp_path: Path) -> None:
    results = tmp_path / "results" / "small"
    results.mkdir(parents=True)
    shutil.copy(REPOSITORY / "results" / "small" / "table3_groups.csv", results)
    done = run(SCRIPT, "--submit", "--plan", "--only", "simple", "--seeds", "0", "1", "99", "--home", tmp_path, "--profile", "gpu")
    assert done.returncode == 0, done.stderr
    assert "2 published runs are left out; to run them again, give a fresh --home." in done.stdout and "\n1 run on 1 GPU each" in done.stdout
    for flag in (("--status",), ("--submit", "--plan")):
        done = run(SCRIPT, *flag, "--only", "simple", "--seeds", "0", "--home", tmp_path)
        assert done.returncode == 0 and done.stdout == "1 published run is left out; to run them again, give a fresh --home.\n"


def test_status_works_from_files_alone(home: Path) -> None:
    done = run(SCRIPT, "--status", "--json", *SMOKE_FLAGS, "--only", "simple", "ip", "--home", home)
    assert done.returncode == 0, done.stderr
    assert [(row["run"].split("-")[1], row["state"]) for row in json.loads(done.stdout)] == [("simple", "done"), ("ip", "missing")]
