"""The one cluster that all SLURM tests share."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "slurm"))

from local_cluster import Cluster, local_cluster, missing_programs


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
