"""The README's numbers, from files: `python -m csn.report` writes them between the markers of README.md.

A block starts at <!-- results: NAME --> and ends at <!-- end -->. A test keeps README and files equal.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from math import isfinite
from pathlib import Path

from csn.provenance import REPOSITORY
from csn.recipes import SMALL
from csn.show import cell, measured
from csn.spec import Recipe, UserError
from csn.table import Line, Table, csv_path, judge, read_lines

BLOCK = re.compile(r"(<!-- results: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def table_of(name: str) -> Table:
    """The TABLE of experiments/<name>.py."""
    sys.path.insert(0, str(REPOSITORY / "experiments"))
    try:
        return __import__(name).TABLE  # type: ignore[no-any-return]
    except ModuleNotFoundError:
        raise UserError(f"README names the table {name}, experiments/{name}.py does not exist; mend the marker.") from None
    finally:
        sys.path.pop(0)


def markdown(table: Table, lines: Sequence[Line], recipe: Recipe) -> str:
    """Rows with mean, half the 95 % interval and n; then the claims with difference, interval, n and verdict."""
    whole = [line for line in lines if not line["error"]]
    side = f"{recipe.frames}x{recipe.crop}x{recipe.crop}"
    out = [
        f"Scale `{recipe.scale}`, width {recipe.width}; GMACs of one {side} clip; per cent, mean ± half the 95 % interval over n seeds; "
        "an empty cell was not run.",
        "",
        "| row | GMACs | M parameters | M interactions | train video@1 | test clip@1 | test video@1 | n |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in table.rows:
        own = [line for line in whole if line["row"] == row.label]
        costs = [own[0][name] if own else "" for name in ("gmacs", "params_m", "interactions_m")]
        shown = [f"{float(c):.3f}" if c else "" for c in costs]
        metrics = [measured(own, row.label, name) for name in ("train_top1", "clip_top1", "video_top1")]
        out.append(f"| {row.label} | {' | '.join(shown)} | {' | '.join(cell(m) for m in metrics)} | {metrics[2].n or ''} |")
    out += ["", "| claim of the paper | smallest difference | n | verdict |", "|---|---|---:|---|"]
    for claim in table.claims:
        one = judge(claim, whole)
        d, pair = one.difference, " over ".join(one.pair)
        told = f"{d.mean:+.1f} ({pair})" if isfinite(d.mean) else f"not run ({pair})"
        bounds = f" [{d.low:+.1f}, {d.high:+.1f}]" if isfinite(d.low) else ""
        out.append(f"| {claim.text} | {told}{bounds} | {d.n} | {one.verdict} |")
    return "\n".join(out) + "\n"


def filled(readme: str, home: Path = REPOSITORY, recipe: Recipe = SMALL) -> str:
    """readme with every block written anew from the CSVs below home. Raises UserError for an unknown table."""

    def block(match: re.Match[str]) -> str:
        table = table_of(match.group(2))
        return match.group(1) + markdown(table, read_lines(csv_path(table, recipe, home)), recipe) + match.group(3)

    return BLOCK.sub(block, readme)


if __name__ == "__main__":
    path = REPOSITORY / "README.md"
    path.write_text(filled(path.read_text(encoding="utf-8")), encoding="utf-8")
