"""A table from --submit to its CSV while a node dies and a job is preempted: the lines of the table made here. About 90 s."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from local_cluster import Cluster

from csn import slurm
from csn.records import read_progress

from .jobs import REPOSITORY, job_field, sbatch, until, wait_state
from .submitted import held_until_signalled

ROWS = ("simple", "simple-D", "bottleneck", "bottleneck-D")
SCRIPT = (sys.executable, str(REPOSITORY / "experiments" / "table3_groups.py"), "--scale", "smoke", "--only", *ROWS)
COLUMNS = ("row", "seed", "train_top1", "clip_top1", "video_top1", "video_top5", "run")
SINFO = ("sinfo", "-h", "-p", "main", "-N", "-o", "%N %t")


def lines(home: Path) -> list[dict[str, str]]:
    """The accuracy columns of the table's CSV."""
    with (home / "results" / "smoke" / "table3_groups.csv").open() as file:
        return [{name: line[name] for name in COLUMNS} for line in csv.DictReader(file)]


def first_two(home: Path) -> dict[str, int]:
    """Stop (SIGSTOP) the first two runs as soon as they train, so that they cannot finish; process ids by run name."""
    held: dict[str, int] = {}

    def both() -> bool:
        for folder in (home / "runs").glob("*"):
            now = read_progress(folder)
            if folder.name not in held and now.get("phase") in ("train", "test"):
                held[folder.name] = now["pid"]
                os.kill(now["pid"], signal.SIGSTOP)
        return len(held) == 2

    until("two runs to train", both)
    return held


def test_a_table_submitted_while_a_node_dies_and_a_job_is_preempted_equals_the_local_one(here: Cluster, data: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    env = os.environ | {"COLUMNS": "300"}

    def call(*flags: str) -> str:
        command = [*SCRIPT, "--home", str(there), "--data", str(data), *flags]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    spare = here.nodes[2]
    here.call("scontrol", "update", f"nodename={spare}", "state=drain", "reason=a cluster of two nodes")
    try:
        assert "#SBATCH --array=0-3%2" in call("--submit", "--plan", "--profile", "local")
        assert ": 4 runs" in call("--submit", "--profile", "local", "--dirty")
        pids = first_two(there)
        submission = slurm.submissions(there, pids)[0]
        preempted, lost = pids
        nodes = [job_field(here, submission.job_id(name), "NodeList") for name in pids]
        assert len(set(nodes)) == 2 and spare not in nodes  # 2 GB each: one a node
        here.kill_node(nodes[1])
        with held_until_signalled(pids[preempted]):
            urgent = sbatch(here, "true", "-p", "urgent", "-w", nodes[0], "-c4", "-o", "/dev/null")
        assert "Nothing is missing." in call("--submit", "--profile", "local", "--dirty")  # they are queued or running
        wait_state(here, urgent, "COMPLETED")
        until("SLURM to notice the dead node", lambda: job_field(here, submission.job_id(lost), "Restarts") == "1")
        here.start_node(nodes[1])
        elsewhere = subprocess.Popen([*SCRIPT, "--home", str(tmp_path / "here"), "--data", str(data)], stdout=subprocess.DEVNULL, env=env)
        until("all records", lambda: len(list(there.glob("runs/*/record.json"))) == len(ROWS))
    finally:
        here.call("scontrol", "update", f"nodename={spare}", "state=resume")
        for node in (line.split()[0] for line in here.call(*SINFO).stdout.splitlines() if "down" in line):
            here.start_node(node)
        until("the nodes", lambda: {line.split()[1] for line in here.call(*SINFO).stdout.splitlines()} <= {"idle", "mix"})
    assert [row["state"] for row in json.loads(call("--status", "--json"))] == ["done"] * len(ROWS)
    assert "4 of 4 done" in call("--status")
    assert "None of the runs is queued" in call("--cancel")

    restarts = {name: job_field(here, submission.job_id(name), "Restarts") for name in submission.runs}
    assert restarts == {name: "1" if name in pids else "0" for name in submission.runs}
    logs = [submission.log(name).read_text() for name in submission.runs]
    assert [log.count("Job completed successfully") for log in logs] == [1] * len(ROWS)  # none lost, none trained twice
    assert "the state is saved" in submission.log(preempted).read_text()
    made = {path: path.stat().st_mtime_ns for path in there.glob("runs/*/record.json")}
    assert "Nothing is missing." in call("--submit", "--profile", "local", "--dirty")
    call("--show")
    assert {path: path.stat().st_mtime_ns for path in there.glob("runs/*/record.json")} == made
    assert elsewhere.wait() == 0
    assert lines(there) == lines(tmp_path / "here")
    assert sorted(line["run"] for line in lines(there)) == sorted(submission.runs) and len(made) == len(ROWS)
