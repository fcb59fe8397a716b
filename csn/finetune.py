"""Fine-tune a checkpoint on a data set of your own or a public one: a run like any other, resumable, here or on a cluster.

    DATA/checkpoints/irCSN_152_ig65m.pth                  any format that csn.load reads
    DATA/folder/train/<class>/*.mp4, DATA/folder/test/... one folder a class; scanned once (python -m csn.data scan)

    python -m csn.finetune irCSN_152_ig65m.pth --kind folder --data DATA --home HOME --device cuda [--freeze-bn]
    python -m csn.finetune irCSN_152_ig65m.pth --kind ucf101 --data DATA --home HOME --submit --profile mine

Network, clip (of its test) and input statistics are the file's; the classifier is fresh unless the classes are the same. Every flag of the table
scripts works (--plan, --show, --submit, --status, --seeds, ...) but --scale. The weights appear as HOME/runs/<run>/weights.safetensors, the results
in HOME/results/paper/, as those of all rows with a recipe of their own.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

from csn.cli import main
from csn.data.folder import read_classes
from csn.flags import Parser, folder
from csn.spec import CLASSES, Recipe, UserError, VideoKind, VideoSet, require
from csn.table import Row, Table

RATE = 0.0001 / 4  # learning rate for every clip of a batch: VMZ scripts/finetune_ucf101.sh, 0.0001 a GPU of 4 clips


def parser_of() -> Parser:
    """The flags of fine-tuning; those it does not know belong to the table scripts."""
    top = Parser(prog="python -m csn.finetune", description="Fine-tune a checkpoint; the other flags are those of the table scripts.", allow_abbrev=False)
    top.add_argument("checkpoint", help="name of a file below DATA/checkpoints/")
    top.add_argument("--kind", required=True, choices=get_args(VideoKind), help="the data set, below DATA/<kind>")
    top.add_argument("--data", required=True, type=folder, help="folder of the data sets and of checkpoints/")
    top.add_argument("--fold", type=int, default=1, help="of ucf101 and hmdb51 (default: 1)")
    top.add_argument("--epochs", type=int, default=8, help="passes over the training videos (default: 8)")
    top.add_argument("--batch", type=int, default=32, help="clips of a step (default: 32)")
    top.add_argument("--micro-batch", type=int, default=4, help="clips of one forward (default: 4)")
    top.add_argument("--lr", type=float, help="learning rate (default: 0.000025 for every clip of the batch)")
    top.add_argument("--freeze-bn", action="store_true", help="keep batch norm as it is in the file")
    top.add_argument("--no-mirror", action="store_true", help="for classes that tell left from right")
    return top


def table_of(args: list[str]) -> tuple[Table, list[str]]:
    """The table of one row that the flags describe, and the flags left over. Raises UserError."""
    own, rest = parser_of().parse_known_args(args)
    own.data = own.data.resolve()  # as in the table scripts
    from csn.checkpoints.reading import read
    from csn.data.loader import load, scanned

    facts, _ = read(own.data / "checkpoints" / own.checkpoint)
    for note in facts.notes:
        print(f"note: {note}", file=sys.stderr)
    given = facts.input
    if any(flag == "--scale" or flag.startswith("--scale=") for flag in rest):
        raise UserError("Argument --scale: fine-tuning has a recipe of its own, by these flags and the file; leave it out.")
    require(own.epochs >= 1, "--epochs", own.epochs, "must be at least 1")
    if own.batch < 1 or own.micro_batch < 1:
        raise UserError(f"`--batch` (={own.batch}) and `--micro-batch` (={own.micro_batch}) must be at least 1.")
    classes = 0
    if own.kind not in CLASSES:
        train = own.data / own.kind / "train"
        if not train.is_dir() and not (train.parent / "classes.txt").is_file():
            raise UserError(f"{train} has no folder of a class; put the training videos into {train}/<class>/.")
        classes = len(read_classes(train.parent, train))
    recipe = Recipe(
        scale="finetune", data=VideoSet(kind=own.kind, fold=own.fold, classes=classes), width=facts.variant.width, pool1=facts.variant.pool1,
        frames=given.frames, stride=given.stride, crop=given.crop, resize=(given.short, given.short * 5 // 4) if given.short else None,
        mirror=not own.no_mirror and not own.kind.startswith("something"), mean=given.mean, std=given.std, epochs=own.epochs, warmup=0,
        clips_per_epoch=own.batch, lr=RATE * own.batch if own.lr is None else own.lr, batch=own.batch, micro_batch=own.micro_batch, test_clips=10,
        test_crop=given.crop, views_per_batch=own.micro_batch, fps=None if own.kind == "something-v1" else given.fps,
        pretrained=own.checkpoint, freeze_bn=own.freeze_bn,
    )  # fmt: skip
    if all(entry.plan is None or entry.plan.fps <= 0 for entry in scanned(own.data / own.kind, own.kind).entries.values()):
        recipe = replace(recipe, fps=None)  # pictures carry no frame rate: they are taken as they are
    videos = len(load(recipe, own.data, "train").samples)
    recipe = replace(recipe, clips_per_epoch=max(videos // own.batch, 1) * own.batch)  # every video about once
    row = Row(label=Path(own.checkpoint).stem, variant=facts.variant, recipe=recipe, pretrained=own.checkpoint)
    table = Table(name=f"finetune_{own.kind}_{row.label}", title=f"Fine-tuning on {own.kind}", rows=(row,), scale="paper")
    return table, [*rest, "--data", str(own.data)]


def run(arguments: Sequence[str] | None = None) -> int:
    """Do what the flags say; the exit codes are those of the table scripts."""
    try:
        table, rest = table_of(list(sys.argv[1:] if arguments is None else arguments))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted; nothing was begun.", file=sys.stderr)
        return 2
    return main(table, rest)


if __name__ == "__main__":
    sys.exit(run())
