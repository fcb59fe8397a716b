"""The code that was submitted is the code that runs: a copy by commit."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from csn.spec import UserError

CODE = ("csn", "experiments", "requirements.txt")  # what a snapshot holds


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
    done = subprocess.run(["git", "-C", str(repository), *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        why = done.stderr.strip() or "git failed"
        raise UserError(f"{repository} is not a git checkout with a commit ({why}); --submit runs a commit.")
    return done.stdout


def version(repository: Path) -> Version:
    """The version of the code in `repository` as it lies there now."""
    commit = git(repository, "rev-parse", "--short=12", "HEAD").strip()
    diff = git(repository, "diff", "--binary", "HEAD", "--", *CODE)
    new = git(repository, "ls-files", "-z", "--others", "--exclude-standard", "--", *CODE).split("\0")[:-1]
    digest = hashlib.sha256(diff.encode())
    for name in sorted(new):
        digest.update(name.encode() + b"\0" + (repository / name).read_bytes())
    return Version(commit, digest.hexdigest()[:12] if diff or new else "")


def snapshot(repository: Path, home: Path, allow_dirty: bool) -> tuple[Path, Version]:
    """Copy the code to HOME/snapshots/: (folder, version).

    Raises UserError with the changed files when the code differs from its commit and allow_dirty is not set.
    """
    current = version(repository)
    if current.dirty and not allow_dirty:
        files = git(repository, "status", "--short", "--", *CODE).rstrip()
        rule = "commit it, or pass --dirty to submit it as it is"
        raise UserError(f"The code differs from commit {current.commit}: {rule}.\n{files}")
    target = current.folder(home)
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(dir=target.parent))
        listed = git(repository, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *CODE)
        for name in filter(None, listed.split("\0")):
            if (repository / name).is_file():  # a deleted file is listed too
                (partial / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(repository / name, partial / name)
        partial.chmod(0o755)
        partial.rename(target)
    return target, current
