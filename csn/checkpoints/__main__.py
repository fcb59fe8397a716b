"""python -m csn.checkpoints FILE [--to OUT.safetensors]: say what a checkpoint holds; convert it to our format."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from csn.checkpoints.formats import STATISTICS
from csn.checkpoints.network import write
from csn.checkpoints.reading import class_names, read
from csn.flags import Parser
from csn.spec import UserError


def parser() -> Parser:
    """The command line."""
    top = Parser(prog="python -m csn.checkpoints", description="Say what a checkpoint holds; convert it to our format.")
    top.add_argument("file", type=Path, help="of VMZ (.pth, .pkl), MMAction2, PyTorchVideo, torchvision or ours; its kind is seen in its content")
    top.add_argument("--to", type=Path, metavar="OUT.safetensors", help="write the network there, with all that goes with it")
    top.add_argument("--classes", type=Path, metavar="FILE", help="names of the classes, one a line, in order")
    top.add_argument("--statistics", choices=list(STATISTICS), help="of the input, in place of those that the file or its format tells")
    return top


def main(arguments: list[str] | None = None) -> int:
    """Run the command; 0, or 2 where a person has to mend something."""
    try:
        args = parser().parse_args(arguments)
        facts, state = read(args.file, args.statistics)
        if args.classes:
            facts = replace(facts, classes=class_names(args.classes, facts.num_classes))
        grid = Table(show_header=False, box=None, pad_edge=False)
        numbers = sum(tensor.numel() for name, tensor in state.items() if not name.endswith("num_batches_tracked"))
        for name, value in [*facts.rows(), ("tensors", f"{len(state)}, {numbers:,} numbers")]:
            grid.add_row(name, value)
        Console(highlight=False).print(grid, markup=False)
        if args.to:
            if args.to.suffix != ".safetensors":
                raise UserError(f"`--to` (={args.to}) must end in .safetensors.")
            write(args.to, facts, state)
            print(f"Written: {args.to}")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
