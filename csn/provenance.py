"""Where a record comes from: the commit of the code, the device, the versions of the libraries."""

from __future__ import annotations

import hashlib
import os
import platform
import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from csn.spec import UserError

if TYPE_CHECKING:
    import torch

REPOSITORY = Path(__file__).resolve().parent.parent
CODE = ("csn", "experiments", "requirements.txt")  # what runs; results and notebooks are outputs
LIBRARIES = ("torch", "torchvision", "numpy", "decord", "av", "submitit")


@dataclass(frozen=True)
class Version:
    """commit: of the code. dirty: digest of what differs from it, new files included; "" when nothing does."""

    commit: str
    dirty: str

    def folder(self, home: Path) -> Path:
        """Where the copy of this version lies."""
        return home / "snapshots" / (f"{self.commit}-{self.dirty}" if self.dirty else self.commit)


def git(repository: Path, *arguments: str) -> str:
    """The output of git in `repository`. Raises UserError where that is no checkout with a commit."""
    try:
        done = subprocess.run(["git", "-C", str(repository), *arguments], capture_output=True, text=True, errors="surrogateescape", check=False)
    except OSError:
        raise UserError("git is missing here; install it.") from None
    if done.returncode:
        why = done.stderr.strip() or "git failed"
        raise UserError(f"{repository} is not a git checkout with a commit ({why}); --submit runs a commit.")
    return done.stdout


def version(repository: Path) -> Version:
    """The version of the code in `repository` as it lies there now. Raises UserError where git knows none."""
    if not Path(git(repository, "rev-parse", "--show-toplevel").rstrip("\n")).samefile(repository):
        raise UserError(f"{repository} lies inside another project's git checkout, whose commit says nothing of it; use a checkout of its own.")
    commit = git(repository, "rev-parse", "--short=12", "HEAD").strip()
    diff = git(repository, "diff", "--binary", "HEAD", "--", *CODE)
    new = git(repository, "ls-files", "-z", "--others", "--exclude-standard", "--", *CODE).split("\0")[:-1]
    digest = hashlib.sha256(os.fsencode(diff))
    for name in sorted(new):
        path = repository / name
        digest.update(os.fsencode(name) + b"\0")
        if path.is_symlink():  # to nothing, perhaps: editors mark a file as open so
            digest.update(os.fsencode(path.readlink()))
        elif path.is_file():
            with suppress(PermissionError):  # what cannot be read cannot run
                digest.update(path.read_bytes())
    return Version(commit, digest.hexdigest()[:12] if diff or new else "")


def code_version() -> dict[str, Any]:
    """commit and dirty of the code that runs; dirty is None when nothing differs, commit "" where nobody knows it."""
    if os.environ.get("CSN_COMMIT"):  # a snapshot without its git folder names its commit here
        here = Version(os.environ["CSN_COMMIT"], os.environ.get("CSN_DIRTY", ""))
    else:
        try:
            here = version(REPOSITORY)
        except UserError:
            here = Version("", "")
    return {"commit": here.commit, "dirty": here.dirty or None}


def device_of(name: str) -> torch.device:
    """The device of that name. Raises UserError where there is none."""
    import torch

    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"`--device` (={name}) must be cpu, cuda or cuda:N.") from None
    if device.type not in ("cpu", "cuda") or (device.type == "cuda" and not (device.index or 0) < torch.cuda.device_count()):
        raise UserError(f"`--device` (={name}) is not on this machine; it has cpu and {torch.cuda.device_count()} CUDA devices.")
    return device


def environment(device: Any, threads: int) -> dict[str, Any]:
    """Device, versions, threads, host: what a record says about where it was made."""
    import torch

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()
    return {
        "device": name, "device_type": device.type, "threads": threads, "host": socket.gethostname(),
        "python": platform.python_version(), "versions": {n: installed(n) for n in LIBRARIES},
    }  # fmt: skip


def installed(package: str) -> str | None:
    """The version of an installed package, or None."""
    try:
        return metadata.version(package)
    except ImportError:
        return None


def cpu_name() -> str:
    """The processor as Linux names it, or what Python knows, with family and model: one name may cover several, whose bits differ."""
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        lines = []
    facts = {name.strip(): value.strip() for name, colon, value in (line.partition(":") for line in lines) if colon}
    name = facts.get("model name") or platform.processor() or platform.machine()
    return f"{name} (family {facts['cpu family']} model {facts['model']})" if {"cpu family", "model"} <= facts.keys() else name


def warn_about(torch: Any) -> None:
    """Name the versions whose 3D convolutions are known to be wrong or slow."""
    if torch.__version__.startswith("2.9."):
        print("warning: torch 2.9 has faults in Conv3d (bf16 memory and speed); use 2.10 or later.", file=sys.stderr)
    cudnn = torch.backends.cudnn.version() if torch.cuda.is_available() else None
    if cudnn and 90800 <= cudnn < 91100:
        print(f"warning: cuDNN {cudnn} (9.8 to 9.10) has faults in Conv3d; use 9.11 or later.", file=sys.stderr)
