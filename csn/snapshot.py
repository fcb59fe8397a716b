"""The code that was submitted is the code that runs: a copy by commit."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from csn.provenance import CODE, Version, git, version
from csn.spec import UserError


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
        listed = git(repository, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *CODE)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=target.parent, prefix=".") as partial:
                copy = Path(partial) / "code"
                copy.mkdir()
                for name in filter(None, listed.split("\0")):
                    if (repository / name).is_file():  # a deleted file is listed too
                        (copy / name).parent.mkdir(parents=True, exist_ok=True)
                        shutil.copyfile(repository / name, copy / name)
                copy.rename(target)
        except OSError as error:
            raise UserError(f"Cannot copy the code to {target} ({error.strerror or error}); free space there, or give another folder with --home.") from None
    return target, current
