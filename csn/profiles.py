"""What a job asks of a SLURM cluster: slurm/NAME.toml -> Profile -> the parameters of sbatch."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from csn.spec import UserError, require

FOLDER = Path(__file__).resolve().parent.parent / "slurm"
TIME = re.compile(r"(?:(\d+)-)?(\d{1,2}):(\d\d):(\d\d)")
LEAST_MINUTES = 13  # submitit counts every end of a job of 10 minutes or less as a time-out, and gives up after some
TYPES = {str: "text in quotes", int: "a whole number", tuple: "a list of texts"}


@dataclass(frozen=True, kw_only=True)
class Profile:
    """What one run gets on the cluster.

    partition, account, qos, constraint: as sbatch takes them; empty leaves the choice to the cluster.
    time: limit of one sitting, HH:MM:SS or D-HH:MM:SS; a longer run is checkpointed, requeued and goes on.
    nodes, tasks_per_node, gpus_per_node: processes of one run, on device "cuda" one a GPU. memory: GB a node.
    parallel: runs of the array at the same time. signal_delay: seconds between the signal to save and the end of time.
    setup: lines of shell before the run. device: "cuda" or "cpu". threads: of torch, on the CPU. workers: loader
    processes a task. checkpoint_every: seconds.
    """

    partition: str = ""
    account: str = ""
    qos: str = ""
    constraint: str = ""
    time: str = "12:00:00"
    nodes: int = 1
    gpus_per_node: int = 0
    tasks_per_node: int = 1
    cpus_per_task: int = 1
    memory: int = 8
    parallel: int = 8
    signal_delay: int = 120
    setup: tuple[str, ...] = ()
    device: Literal["cpu", "cuda"] = "cpu"
    threads: int = 1
    workers: int = 0
    checkpoint_every: int = 60

    def __post_init__(self) -> None:
        for field in fields(self):
            value, kind = getattr(self, field.name), type(field.default)
            texts = kind is not tuple or (isinstance(value, tuple) and all(isinstance(line, str) for line in value))
            require(type(value) is kind and texts, field.name, repr(value), f"must be {TYPES[kind]}")
        counts = ("nodes", "tasks_per_node", "cpus_per_task", "memory", "parallel", "threads", "checkpoint_every")
        for name in counts:
            require(getattr(self, name) >= 1, name, getattr(self, name), "must be at least 1")
        for name in ("gpus_per_node", "workers"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "must be at least 0")
        require(self.device in ("cpu", "cuda"), "device", self.device, "must be cpu or cuda")
        require(TIME.fullmatch(self.time) is not None, "time", self.time, "must be HH:MM:SS or D-HH:MM:SS")
        require(self.minutes >= LEAST_MINUTES, "time", self.time, f"must be at least {LEAST_MINUTES} minutes")
        least = self.signal_delay >= 30 and self.signal_delay <= 30 * self.minutes
        require(least, "signal_delay", self.signal_delay, "must be at least 30 seconds and at most half of `time`")
        one_each = self.device == "cpu" or self.gpus_per_node == self.tasks_per_node
        rule = f"must equal `gpus_per_node` (={self.gpus_per_node}) on device cuda: one process a GPU"
        require(one_each, "tasks_per_node", self.tasks_per_node, rule)

    @property
    def minutes(self) -> int:
        """`time` in minutes, rounded up."""
        match = TIME.fullmatch(self.time)
        assert match is not None
        days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
        return (days * 24 + hours) * 60 + minutes + (seconds > 0)

    @property
    def devices(self) -> int:
        """GPUs of one run, or CPUs on device cpu."""
        return self.nodes * (self.gpus_per_node if self.device == "cuda" else self.tasks_per_node * self.cpus_per_task)

    def parameters(self) -> dict[str, Any]:
        """The same as submitit's SlurmExecutor takes it."""
        chosen = {name: getattr(self, name) for name in ("partition", "account", "qos", "constraint")}
        return (
            {name: value for name, value in chosen.items() if value}
            | {
                "time": self.minutes,
                "nodes": self.nodes,
                "ntasks_per_node": self.tasks_per_node,
                "cpus_per_task": self.cpus_per_task,
                "mem": f"{self.memory}GB",
                "array_parallelism": self.parallel,
                "signal_delay_s": self.signal_delay,
                # else the ranks left wait for a killed one; and SLURM 22.05 to 23.11 gives a step one CPU a task unless told
                "srun_args": ["--kill-on-bad-exit=1", f"--cpus-per-task={self.cpus_per_task}"],
                "stderr_to_stdout": True,
            }
            | ({"gpus_per_node": self.gpus_per_node} if self.gpus_per_node else {})
        )


def read_profile(name: str, folder: Path = FOLDER) -> Profile:
    """The Profile of folder/NAME.toml. Raises UserError that names the known profiles, keys or the rule of a value."""
    path = folder / f"{name}.toml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in folder.glob("*.toml")))
        raise UserError(f"`profile` (={name}) must be one of {known}, or add {path}.")
    try:
        content = tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"The profile {path} is not TOML ({error}); mend that line.") from None
    keys = [field.name for field in fields(Profile)]
    for key in content:
        require(key in keys, "key", key, f"of {path} must be one of {', '.join(keys)}")
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in content.items()}
    try:
        return Profile(**values)
    except UserError as error:
        raise UserError(f"In {path}: {error}") from None
