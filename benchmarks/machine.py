"""What a benchmark's numbers were measured on, and how they are written: CSV with the machine as comment lines."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import pandas as pd
import torch
from rich import box
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from csn.files import write_atomic
from csn.provenance import cpu_name
from csn.spec import UserError, require

RESULTS = Path(__file__).resolve().parents[1] / "results" / "benchmarks"


def on_cuda(args: Namespace) -> None:
    """Raises UserError where --device cuda is asked for and is not there."""
    require(args.device == "cpu" or torch.cuda.is_available(), "--device", args.device, "needs an NVIDIA GPU and a CUDA build of torch; use cpu")


def script(main: Callable[[], int | None]) -> NoReturn:
    """Run main and exit: with 2 and one sentence for a person's mistake, with 130 when interrupted; what was written stays."""
    try:
        sys.exit(main())
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted; what was measured is written", file=sys.stderr)
        sys.exit(130)


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
    """results/benchmarks/<name>.csv: facts as "# key: value" lines, then the rows (pandas: read_csv(.., comment="#")).

    Raises UserError, and leaves what is there, when there are no rows or the disk refuses.
    """
    file = RESULTS / f"{name}.csv"
    if not rows:
        raise UserError(f"Nothing was measured, so {file} is left as it is.")
    head = "".join(f"# {key}: {value}\n" for key, value in facts.items())
    write_atomic(file, (head + pd.DataFrame(rows).to_csv(index=False)).encode())
    return file


def heading(facts: Mapping[str, str]) -> str:
    """What stands above a figure: the setting and the machine."""
    return f"{facts['setting']}\n{facts.get('gpu', facts['processor'])}"


def show(title: str, rows: Sequence[Mapping[str, Any]], *columns: str) -> None:
    """Print the columns (default: all) of rows; those that say the same in every row, once, above."""
    names = [name for name in columns or rows[0] if len(rows) == 1 or len({row[name] for row in rows}) > 1]
    same = ", ".join(f"{name} {cell(rows[0][name])}" for name in columns or rows[0] if name not in names)
    table = Table(title=title + (f"; {same}" if same else ""), box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for name in names:
        table.add_column(name.replace("_", " "), justify="left" if isinstance(rows[0][name], str) else "right", overflow="fold")
    for row in rows:
        table.add_row(*(cell(row[name]) for name in names))
    Console().print(table)


def cell(value: Any) -> str:
    return "" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)
