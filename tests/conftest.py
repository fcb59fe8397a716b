"""What the tests share: a home in a temporary folder, the smoke data set made once, the command line as a person uses it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from csn.provenance import REPOSITORY
from csn.recipes import SMOKE

os.environ.setdefault("OMP_NUM_THREADS", "1")  # small operators of several processes on few cores wait for each other otherwise


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with the smoke set in it."""
    from csn.data import moving_digits

    root = tmp_path_factory.mktemp("data")
    for split in moving_digits.SPLITS:
        moving_digits.decoded(SMOKE.data, root, split, workers=2)
    return root


def run(*arguments: object, timeout: float = 300, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run this Python with arguments from the repository, 80 columns wide; stdout and stderr as text."""
    env = {**os.environ, "COLUMNS": "80", "PYTHONPATH": str(REPOSITORY), **environment}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=env, cwd=REPOSITORY, check=False)


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """The one sentence of a command that was refused: exit code 2, no traceback."""
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    return lines[0]
