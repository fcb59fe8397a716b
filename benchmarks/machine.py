"""What a benchmark's numbers were measured on, and how they are written: CSV with the machine as comment lines."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from csn.provenance import cpu_name

RESULTS = Path(__file__).resolve().parents[1] / "results" / "benchmarks"


def describe(device: str) -> dict[str, str]:
    """Processor, accelerator, versions, commit, date, and how busy the machine was."""
    try:
        described = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=RESULTS.parents[1], capture_output=True, text=True, check=False).stdout
    except OSError:  # no git here
        described = ""
    facts = {
        "processor": f"{cpu_name()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "commit": described.strip() or "unknown",
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "load": f"{os.getloadavg()[0]:.1f} processes runnable over the last minute, these included",
    }
    if device == "cuda":
        facts["gpu"] = f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
    return facts


def write(name: str, rows: Sequence[Mapping[str, Any]], facts: Mapping[str, str]) -> Path:
    """results/benchmarks/<name>.csv: facts as "# key: value" lines, then the rows (pandas: read_csv(.., comment="#"))."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    file = RESULTS / f"{name}.csv"
    head = "".join(f"# {key}: {value}\n" for key, value in facts.items())
    file.write_text(head + pd.DataFrame(rows).to_csv(index=False))
    return file


def heading(facts: Mapping[str, str]) -> str:
    """What stands above a figure: the setting and the machine."""
    return f"{facts['setting']}\n{facts.get('gpu', facts['processor'])}"


def show(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    table = Table(title=title)
    for column in rows[0]:
        table.add_column(column, justify="left" if isinstance(rows[0][column], str) else "right")
    for row in rows:
        table.add_row(*(f"{v:.3g}" if isinstance(v, float) else str(v) for v in row.values()))
    Console(width=160).print(table)
