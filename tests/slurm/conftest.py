"""The one cluster that all SLURM tests share, and the data and the run to compare with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "slurm"))

from local_cluster import Cluster, local_cluster, missing_programs

from csn.data import moving_digits
from csn.recipes import SMOKE
from csn.records import folder_of, read_record
from csn.spec import MovingDigits

from .jobs import REPOSITORY
from .submitted import RUN


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("slurm")


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    if lacking := missing_programs():
        pytest.skip(f"no SLURM here: {', '.join(lacking)} missing (python slurm/local_cluster.py install, as root)")
    with local_cluster(nodes=3) as running:
        yield running


@pytest.fixture
def here(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """The shared cluster, as the cluster of this process."""
    for name in set(os.environ) - set(cluster.env):
        monkeypatch.delenv(name)
    for name, value in cluster.env.items():
        monkeypatch.setenv(name, value)
    return cluster


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    assert isinstance(SMOKE.data, MovingDigits)
    moving_digits.make(SMOKE.data, folder, 2, lambda done, total: None)
    return folder


@pytest.fixture(scope="session")
def local(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The record of RUN, made on this machine without SLURM."""
    home = tmp_path_factory.mktemp("local")
    folder = folder_of(RUN, home)
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(RUN.to_dict()))
    call = [sys.executable, "-m", "csn.execute", str(folder / "run.json"), "--home", str(home), "--data", str(data)]
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    subprocess.run(call, env=env, cwd="/", check=True)
    return read_record(RUN, home) or {}
