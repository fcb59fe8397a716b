"""Does training end where it would with torch's own convolutions? Rows of Table 4 at scale small, the same seeds, both ways.

    python benchmarks/accuracy.py --home HOME                  results/benchmarks/accuracy_cpu.csv; an hour on one core

Ours are the committed lines of the table. Torch's are trained here, from the same weights and with the same clips, every convolution
torch's (csn.export.portable). Rounding alone sets two trainings apart, as another seed would; so the differences, ours less
torch's, are told with the 95 % interval of their mean over the seeds. Runs below HOME that are finished are not trained again.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import pandas as pd
from machine import RESULTS, describe, show, write
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import csn
import csn.train
from csn.execute import execute
from csn.export import portable
from csn.metrics import interval
from csn.provenance import REPOSITORY
from csn.recipes import recipe_of
from csn.table import runs_of, table_of

TABLE = "table4_regularization"
METRICS = ("train_top1", "video_top1")


def by_torch(*facts: Any) -> nn.Module:
    return portable(csn.build(*facts))


def beside(ours: pd.DataFrame, row: str, seed: int, record: dict[str, Any]) -> dict[str, Any]:
    """A line of the CSV: both metrics both ways. Raises KeyError where the table has no such line."""
    line = ours.set_index(["row", "seed"]).loc[(row, seed)]
    return {"row": row, "seed": seed, **{f"{metric}_{way}": found[metric] for metric in METRICS for way, found in (("ours", line), ("torch", record))}}


def differences(lines: list[dict[str, Any]]) -> str:
    """Mean difference of each metric and its interval, in percentage points."""
    found = {metric: interval([line[f"{metric}_ours"] - line[f"{metric}_torch"] for line in lines]) for metric in METRICS}
    return ", ".join(f"{metric} {one.mean:+.1f} [{one.low:+.1f}, {one.high:+.1f}]" for metric, one in found.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", default=["ir-CSN-26", "ir-CSN-50"])
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(10)))
    parser.add_argument("--home", type=Path, required=True, help="where the runs go; not where those of the tables are")
    parser.add_argument("--name", default="accuracy_cpu", help="of the CSV")
    args = parser.parse_args()
    csn.train.build = by_torch  # type: ignore[assignment]
    ours = pd.read_csv(REPOSITORY / "results" / "small" / f"{TABLE}.csv")
    facts = describe("cpu") | {"setting": f"scale small, seeds {', '.join(map(str, args.seeds))}; per cent of training and of test videos"}
    lines: list[dict[str, Any]] = []
    for row, run in runs_of(table_of(TABLE).chosen(args.rows), recipe_of("small"), args.seeds):
        lines.append(beside(ours, row.label, run.seed, execute(run, args.home, args.home / "data")))
        if len(lines) > 1:
            write(args.name, lines, facts | {"difference": differences(lines)})
    show(f"{facts['setting']}: {differences(lines)}", lines)
    print(RESULTS / f"{args.name}.csv")


if __name__ == "__main__":
    main()
