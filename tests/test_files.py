"""The one door for files: whole or not at all, held by one process at a time. 1 s."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from csn.files import Held, held, locked, replacing, write_atomic
from csn.provenance import REPOSITORY
from csn.spec import UserError

HOLD = "import sys; from pathlib import Path; from csn.files import held\nwith held(Path(sys.argv[1])):\n    print('held', flush=True); sys.stdin.read()"


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.csv"
    write_atomic(path, b"old")
    with pytest.raises(ZeroDivisionError), replacing(path) as part:
        part.write_text("half")
        assert part.suffix == ".csv" and path.read_text() == "old"  # a reader sees the old file meanwhile
        raise ZeroDivisionError
    with pytest.raises(UserError, match=r"Cannot write .*a\.csv \(No space left on device\); buy a disk\."), replacing(path, "buy a disk") as part:
        part.write_text("half")
        raise OSError(28, os.strerror(28))
    assert path.read_text() == "old" and [p.name for p in path.parent.iterdir()] == ["a.csv"]
    write_atomic(path, b"new")
    assert path.read_text() == "new"
    with pytest.raises(UserError, match="Cannot write"):
        write_atomic(path / "below" / "a file", b"")


def test_a_folder_that_no_file_fits_into_is_one_sentence(tmp_path: Path) -> None:
    """As on a full disk, which has room for the name of the lock and not for who has it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        with pytest.raises(UserError, match=r"Cannot write the folder .*run \(File too large\); give another with --home\."), held(tmp_path / "run"):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    with held(tmp_path / "run"):
        assert str(os.getpid()) in (tmp_path / "run" / "lock").read_text()


def test_writers_at_the_same_time_leave_one_whole_file(tmp_path: Path) -> None:
    path, sizes = tmp_path / "a", range(1, 9)
    threads = [threading.Thread(target=write_atomic, args=(path, bytes([n]) * n * 100_000, False)) for n in sizes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    content = path.read_bytes()
    assert content == content[:1] * content[0] * 100_000 and [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_folder_is_held_by_one_process_and_freed_however_it_ends(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=REPOSITORY)
    assert other.stdout is not None and other.stdout.readline() == b"held\n"
    with pytest.raises(Held, match=rf"run is being worked on by process {other.pid} on .*; wait for it or stop it\."), held(folder):
        pass
    with pytest.raises(Held), locked(folder / "lock"):
        pass
    killer = threading.Timer(0.2, other.kill)
    killer.start()
    with held(folder, wait=True):  # until the other one is killed
        assert other.wait() == -9
        assert (folder / "lock").read_text().startswith(f"process {os.getpid()} on ")
    other.stdout.close()
    assert other.stdin is not None
    other.stdin.close()
    told = r"Cannot write the folder .*\(Not a directory\); give another with --data\."
    with pytest.raises(UserError, match=told), held(folder / "lock" / "x", option="--data"):
        pass


@pytest.mark.parametrize(
    ("number", "remedy"),
    [(errno.EROFS, "mend its permissions or give another folder"), (errno.EACCES, "mend its permissions or give another folder"), (errno.ENOSPC, "free space")],
)
def test_the_remedy_fits_what_the_disk_says(number: int, remedy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(UserError, match=f"{os.strerror(number)}\\); {remedy}"):
        write_atomic(tmp_path / "a", b"")
    assert not list(tmp_path.iterdir())


def test_what_is_to_survive_a_power_cut_reaches_the_disk_before_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    happened: list[str] = []
    sync, rename = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda number: (happened.append(f"sync {os.fstat(number).st_size}"), sync(number))[1])
    monkeypatch.setattr(Path, "replace", lambda self, target: (happened.append("rename"), rename(self, target))[1])
    write_atomic(tmp_path / "a", b"four")
    write_atomic(tmp_path / "a", b"four", durable=False)
    assert happened == ["sync 4", "rename", "rename"]
