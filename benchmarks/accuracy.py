"""Does training end where it would with torch's own convolutions? Rows of Table 4 at scale small, the same seeds, both ways.

    python benchmarks/accuracy.py --home HOME                  results/benchmarks/accuracy_cpu.csv; two hours on one core

Ours are the committed lines of the table. Torch's are trained here, from the same weights and with the same clips, every convolution
torch's (csn.export.portable). Rounding alone sets two trainings apart, as another seed would; so the differences, ours less
torch's, are told for each network with the 95 % interval of their mean over the seeds. Runs below HOME that are finished are not
trained again, and the file's lines of other rows and seeds stay.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import pandas as pd
from machine import RESULTS, describe, script, show, write
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import csn
import csn.train
from csn.execute import execute
from csn.export import portable
from csn.flags import Parser, file_name
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
    both = {f"{metric}_{way}": found[metric] for metric in METRICS for way, found in (("ours", line), ("torch", record))}
    return {"row": row, "seed": seed, **both, "commit": record["commit"]}


def differences(lines: list[dict[str, Any]]) -> str:
    """Mean difference of each metric and its interval, in percentage points, of each row with its number of seeds."""
    told = []
    for row, own in pd.DataFrame(lines).groupby("row", sort=False):
        found = {metric: interval([*(own[f"{metric}_ours"] - own[f"{metric}_torch"])]) for metric in METRICS}
        each = ", ".join(f"{metric} {one.mean:+.1f} [{one.low:+.1f}, {one.high:+.1f}]" for metric, one in found.items())
        told.append(f"{row} (n {len(own)}) {each}")
    return "; ".join(told)


def kept(file: Path, asked: set[tuple[str, int]]) -> list[dict[str, Any]]:
    """The lines of the file, if there is one, of other rows and seeds than are asked for."""
    lines = pd.read_csv(file, comment="#", dtype={"commit": str}).to_dict("records") if file.exists() else []
    return [line for line in lines if (line["row"], line["seed"]) not in asked]


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", default=["ir-CSN-26", "ir-CSN-50"])
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(20)))
    parser.add_argument("--home", type=Path, required=True, help="where the runs go; not where those of the tables are")
    parser.add_argument("--name", type=file_name, default="accuracy_cpu", help="of the CSV")
    args = parser.parse_args()
    csn.train.build = by_torch  # type: ignore[assignment]
    ours = pd.read_csv(REPOSITORY / "results" / "small" / f"{TABLE}.csv")
    facts = describe("cpu") | {"setting": "scale small; per cent of training and of test videos"}
    runs = runs_of(table_of(TABLE).chosen(args.rows), recipe_of("small"), args.seeds)
    lines = kept(RESULTS / f"{args.name}.csv", {(row.label, run.seed) for row, run in runs})
    for row, run in runs:
        lines.append(beside(ours, row.label, run.seed, execute(run, args.home, args.home / "data")))
        lines.sort(key=lambda line: (line["row"], line["seed"]))
        write(args.name, lines, facts | {"difference": differences(lines)})
    show(f"{facts['setting']}: {differences(lines)}", lines)
    print(RESULTS / f"{args.name}.csv")


if __name__ == "__main__":
    script(main)
