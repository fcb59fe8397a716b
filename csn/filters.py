"""The depthwise filters of a finished run, as a small CSV that figures are drawn from: `python -m csn.filters RUN_FOLDER`.

A line is a filter: layer, channel, and its 27 weights in the order time, height, width.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from csn.files import write_atomic
from csn.flags import Parser, folder
from csn.provenance import REPOSITORY
from csn.spec import UserError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

STRONGEST = 8  # filters kept of a layer
COLUMNS = ("network", "layer", "channel", *(f"w{i}" for i in range(27)))


def filters_path(home: Path) -> Path:
    return home / "results" / "filters.csv"


def write_filters(run: Path, home: Path) -> Path:
    """Write the strongest filters of the first, the middle and the last depthwise layer of a run's weights. Returns the file; raises UserError."""
    from csn.checkpoints.network import load
    from csn.depthwise import DepthwiseConv3d

    weights = run / "weights.safetensors"
    if not weights.is_file():
        raise UserError(f"{run} is no folder of a finished run (it lacks weights.safetensors); name one of HOME/runs.")
    layers = [(name, module.weight.detach()) for name, module in load(weights).named_modules() if isinstance(module, DepthwiseConv3d)]
    if not layers:
        raise UserError(f"The network of {run} has no depthwise convolution; name the run of a row like simple-D, bottleneck-D or ip.")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for name, found in (layers[i] for i in sorted({0, len(layers) // 2, len(layers) - 1})):
        strongest = found.flatten(1).norm(dim=1).argsort(descending=True, stable=True)[:STRONGEST]
        writer.writerows([run.name, name, int(i), *(f"{weight:.4g}" for weight in found[i].flatten().tolist())] for i in strongest)
    write_atomic(filters_path(home), text.getvalue().encode())
    return filters_path(home)


def read_filters(home: Path) -> tuple[str, dict[str, NDArray[np.float64]]]:
    """The network's run and {layer: (filters, 3, 3, 3)} of the file below home; ("", {}) where there is none. Raises UserError for a damaged one."""
    import numpy as np

    path = filters_path(home)
    try:
        columns, *lines = csv.reader(path.read_text(encoding="utf-8").splitlines())
        if tuple(columns) != COLUMNS or not lines:
            raise ValueError("its header is another")
        if any(len(line) != len(COLUMNS) for line in lines):
            raise ValueError("a line of it has another length")
        weights = {name: [[float(weight) for weight in line[3:]] for line in lines if line[1] == name] for name in dict.fromkeys(line[1] for line in lines)}
        return lines[0][0], {name: np.array(found).reshape(-1, 3, 3, 3) for name, found in weights.items()}
    except FileNotFoundError:
        return "", {}
    except (OSError, ValueError, IndexError, csv.Error) as error:
        raise UserError(f"{path} is no file of filters ({error}); delete it and run python -m csn.filters again.") from None


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the file. Returns 0, or 2 for what a person can mend."""
    parser = Parser(prog="python -m csn.filters", description="Write some depthwise filters of a finished run to results/filters.csv.")
    parser.add_argument("run", type=Path, help="HOME/runs/<run>, of a network with depthwise convolutions")
    parser.add_argument("--home", type=folder, default=REPOSITORY, help="folder of results/ (default: the repository)")
    try:
        args = parser.parse_args(arguments)
        print(f"{write_filters(args.run, args.home)}: drawn by the notebooks of Table 3 and the summary")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
