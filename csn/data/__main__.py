"""python -m csn.data scan --dataset ucf101 --root DIR: check every video, write the index and the list of damage."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from typing import get_args

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from csn.data import sets
from csn.data.folder import part_of
from csn.data.media import listing
from csn.data.scan import index_file, scan
from csn.data.video import probe
from csn.flags import Parser
from csn.spec import UserError, VideoKind, require


def parser() -> Parser:
    """The command line."""
    top = Parser(prog="python -m csn.data", description="Prepare data sets for training.")
    command = top.add_subparsers(dest="command", required=True).add_parser("scan", help="check every video of a data set")
    command.add_argument("--dataset", required=True, choices=get_args(VideoKind))
    command.add_argument("--root", required=True, type=Path, help="the folder that holds its videos and annotation files")
    command.add_argument("--index", type=Path, help="index file (default: csn_index.jsonl in the root; ROOT.csn_index.jsonl beside it is found too)")
    command.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: all cores)")
    command.add_argument("--seconds", type=float, default=60.0, help="time limit for one video (default: 60), and 5 more for every MB of it")
    command.add_argument("--quick", action="store_true", help="list the packets of H.264 files only; finds no damage inside")
    command.add_argument("--fold", type=int, default=1, help="of ucf101 and hmdb51, for the counts printed at the end")
    return top


def main(arguments: list[str] | None = None) -> int:
    """Run the command; 0, or 2 where a person has to mend something."""
    console = Console(soft_wrap=True)
    try:
        args = parser().parse_args(arguments)
        require(args.fold in (1, 2, 3), "--fold", args.fold, "must be 1, 2 or 3")
        args.root = Path(os.path.normpath(args.root.absolute()))  # lists may hold whole paths; a link stays one, as the index may lie beside it
        paths = listing(args.root)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console) as bar:
            task = bar.add_task("checked", total=len(paths))

            def show(done: int, total: int, damaged: int) -> None:
                bar.update(task, completed=done, total=total, description=f"checked, {damaged} damaged")

            index = scan(
                args.root, paths, args.index, workers=max(args.workers, 1), seconds=args.seconds,
                check=partial(probe, quick=args.quick), quick=args.quick, progress=show,
            )  # fmt: skip
        file = args.index or index_file(args.root)
        damage = file.with_suffix(".damaged.txt")
        damage.write_text("".join(f"{path}\t{reason}\n" for path, reason in index.damaged.items()), encoding="utf-8", errors="surrogateescape")
        fast = sum(entry.plan is not None and entry.plan.reader == "decord" for entry in index.entries.values())
        lost = sum(bool(entry.error) for entry in index.entries.values())
        listed = f" (listed in {damage})" if index.damaged else ""
        told = f"{len(index.entries)} videos, {lost} damaged, {len(index.damaged) - lost} cut short{listed}, {fast} read by decord"
        console.print(told, markup=False)
        if args.dataset == "folder" and part_of(args.root) is None:
            console.print("warning: there is no train/ and no test/: every split is all of it, and to train on it they have to be parted.", highlight=False)
        readable = 0
        for split in sets.SPLITS[args.dataset]:
            try:
                found = sets.find(args.dataset, args.root, split, list(index.entries), args.fold)
            except UserError as error:  # one split is enough to test networks on
                console.print(f"{split}: {error}", highlight=False, markup=False)
                continue
            readable += bool(found.samples)
            console.print("\n".join(index.marked(found).told(split)), highlight=False, markup=False)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        console.print("Stopped; the same command goes on from here.")
        return 130
    if not readable:
        print(f"error: No video below {args.root} is one of {args.dataset} to train or test on; check --root and --dataset.", file=sys.stderr)
    return 0 if readable else 2


if __name__ == "__main__":
    sys.exit(main())
