"""Classify videos with a checkpoint of any format.

    python -m csn.predict VIDEO... --checkpoint FILE          files, folders of videos, lists (.txt, one path a line)

    net = csn.load("ip_csn_152.pkl")
    csn.classify(net, "clip.mp4")                             # [("arm wrestling", 0.93), ...]

A video's probabilities are the mean of softmax over its views: clips spread evenly over it, times crops.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import nn

from csn.checkpoints.formats import STATISTICS
from csn.checkpoints.network import facts_of, load
from csn.checkpoints.reading import class_names
from csn.data import Sample, Split
from csn.data.loader import Reader, TestVideos
from csn.data.media import VIDEOS, lines, listing
from csn.data.video import VideoError, VideoPlan, probe
from csn.evaluate import Forward
from csn.files import printable
from csn.flags import Parser
from csn.inference import folded
from csn.memory import keep_memory
from csn.provenance import device_of
from csn.resnet3d import ResNet3D
from csn.spec import Recipe, UserError, VideoSet, require

SMALL = 0.25  # of a frame: what shows less of it is told
CLIPS = 3  # seconds of work a video on two cores for the largest network; the published tests take 10


@dataclass(frozen=True)
class Answer:
    """What one video is. probs (K,), or None and why it could not be read or shown. note: what of it the views do not show, "" where nothing is to tell."""

    video: Path
    probs: NDArray[np.float32] | None
    why: str = ""
    note: str = ""

    def top(self, number: int, classes: Sequence[str]) -> list[tuple[int, str, float]]:
        """(class, its name, probability) of the `number` likeliest; a number stands for a name that is unknown."""
        if self.probs is None:
            return []
        best = np.argsort(-self.probs, kind="stable")[:number]
        return [(int(k), classes[k] if classes else str(k), float(self.probs[k])) for k in best]


def protocol(net: nn.Module, clips: int = CLIPS, crops: int = 1) -> Recipe:
    """The Recipe by which a network from `csn.load` sees a video: its own input, clips x crops views. Raises UserError."""
    facts = facts_of(net)
    given = facts.input
    if clips < 1:
        raise UserError(f"`--views` (={clips}) must be at least 1.")
    if crops not in (1, 3):
        raise UserError(f"`--crops` (={crops}) must be 1 or 3.")
    return Recipe(
        scale="predict", data=VideoSet(kind="folder", classes=facts.num_classes), frames=given.frames, stride=given.stride,
        crop=given.crop, resize=(given.short, given.short) if given.short else None, mean=given.mean, std=given.std, fps=given.fps,
        test_clips=clips, test_crops=3 if crops == 3 else 1, test_crop=given.crop, views_per_batch=min(4, clips * crops),
    )  # fmt: skip


def answers(
    net: nn.Module, videos: Sequence[Path], recipe: Recipe, device: torch.device, tick: Callable[[int, int], None] = lambda done, total: None
) -> Iterator[Answer]:
    """One Answer a video, in order, as they come; a video that cannot be read, or is smaller than the crop, is an Answer that says why.

    net is moved to device, and left in eval mode. tick(done, total) counts views.
    """
    net.to(device).to(memory_format=torch.channels_last_3d).eval()
    if device.type == "cpu":
        keep_memory()
        net = folded(net) if isinstance(net, ResNet3D) else net  # a CUDA device has kernels of ours, for networks as they are
    forward = Forward(net, recipe, device)
    views_each, reader = recipe.test_clips * recipe.test_crops, Reader()
    for number, path in enumerate(videos):
        own = replace(recipe, fps=None) if path.is_dir() else recipe  # pictures carry no frame rate
        split = Split((Sample(path, (0,), str(path)),), ())
        try:
            views = TestVideos(split, own, reader).views(0)
        except VideoError as error:
            tick((number + 1) * views_each, len(videos) * views_each)
            yield Answer(path, None, error.reason)
            continue
        probs: list[NDArray[np.float32]] = []
        for part in views.split(recipe.views_per_batch):
            probs.append(forward(part))
            tick(number * views_each + sum(map(len, probs)), len(videos) * views_each)
        yield Answer(path, np.concatenate(probs).mean(0), note=note_of(probe(path), own))


def note_of(plan: VideoPlan, recipe: Recipe) -> str:
    """What of a video the views of recipe leave out: a part that cannot be read, or most of its frames where nothing resizes them."""
    shown = recipe.test_crops * recipe.test_crop**2 / (plan.height * plan.width)
    part = f"{100 * shown:.0f} %" if shown >= 0.005 else "under 1 %"
    size = f"crops of {recipe.test_crop} x {recipe.test_crop} show {part} of its frames of {plan.height} x {plan.width}"
    return "; ".join(filter(None, [plan.damage, size if recipe.resize is None and shown < SMALL else ""]))


def classify(net: nn.Module, video: str | Path, clips: int = CLIPS, crops: int = 1, top: int = 5, device: str = "cpu") -> list[tuple[str, float]]:
    """The `top` likeliest classes of a video and their probabilities, by a network from `csn.load`.

    net is moved to device, otherwise left as it is. Raises VideoError where the video cannot be read or is smaller than the crop, and UserError
    where net has another number of classes than its file (a head of your own).
    """
    require(top >= 1, "top", top, "must be at least 1")
    path, modes = Path(video), {module: module.training for module in net.modules()}
    try:
        (answer,) = answers(net, [path], protocol(net, clips, crops), device_of(device))
    finally:
        for module, training in modes.items():
            module.training = training
    if answer.probs is None:
        raise VideoError(path, answer.why)
    known = facts_of(net).num_classes
    require(len(answer.probs) == known, "net", f"{len(answer.probs)} classes", f"must have the {known} of its file, whose names it would be given")
    return [(name, probability) for _, name, probability in answer.top(top, facts_of(net).classes)]


def videos_of(names: Sequence[Path]) -> list[Path]:
    """The videos that files, folders and lists name: a folder stands for all videos below it, a folder of pictures alone is
    one video, a .txt file lists paths, one a line, as seen from where it lies. Raises UserError where there is none."""
    found: list[Path] = []
    for name in names:
        if name.is_dir():
            found += [name / inner for inner in listing(name)] or [name]
        elif name.suffix.lower() == ".txt":
            found += [name.parent / line for _, line in lines(name)]
        else:
            found.append(name)
    if not found:
        raise UserError(f"No video in {', '.join(map(str, names))}; known endings are {', '.join(VIDEOS)}.")
    return found


def parser() -> Parser:
    """The command line."""
    top = Parser(prog="python -m csn.predict", description="Classify videos with a checkpoint of any format.")
    top.add_argument("videos", nargs="+", type=Path, metavar="VIDEO", help="files, folders, or .txt lists of paths")
    top.add_argument("--checkpoint", required=True, type=Path, metavar="FILE", help="of VMZ, MMAction2, PyTorchVideo, torchvision or ours")
    top.add_argument("--views", type=int, default=CLIPS, help=f"clips a video, spread evenly (default: {CLIPS})")
    top.add_argument("--crops", type=int, default=1, choices=(1, 3), help="1: the centre; 3: along the longer side (default: 1)")
    top.add_argument("--top", type=int, default=5, help="classes to tell (default: 5)")
    top.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default: cpu)")
    top.add_argument("--statistics", choices=list(STATISTICS), help="of the input, in place of those that the file or its format tells")
    top.add_argument("--classes", type=Path, metavar="FILE", help="names of the classes, one a line, in order")
    form = top.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON")
    form.add_argument("--csv", action="store_true", help="print CSV; what was used goes to stderr")
    return top


def used(args: argparse.Namespace, net: nn.Module, recipe: Recipe) -> dict[str, str]:
    """What the answers rest on."""
    told = dict(row for row in facts_of(net).rows() if row[0] in ("network", "format", "converted from", "note"))
    crops = "centre crop" if recipe.test_crops == 1 else "3 crops"
    views = f"{recipe.test_clips} clips x {crops} of {recipe.test_crop} x {recipe.test_crop}"
    size = f", short side {recipe.resize[0]}" if recipe.resize else ""
    clip = f"{recipe.frames} frames at stride {recipe.stride}" + (f" of {recipe.fps:g} a second" if recipe.fps else "")
    return {"checkpoint": str(args.checkpoint), **told, "views": views + size, "clip": clip, "device": args.device}


class Printer:
    """Prints answers in the form asked for: text and CSV as they come, JSON at the end, whole."""

    def __init__(self, args: argparse.Namespace, classes: Sequence[str], told: dict[str, str]) -> None:
        self.args, self.classes, self.told = args, classes, told
        self.videos: list[dict[str, Any]] = []
        if not args.json:
            for name, value in told.items():
                print(f"{name}: {value}", file=sys.stderr if args.csv else sys.stdout)
        if args.csv:
            self.row("video", "rank", "class", "name", "probability", "error", "note")

    def row(self, *cells: object) -> None:
        csv.writer(sys.stdout).writerow(cells)
        sys.stdout.flush()

    def add(self, answer: Answer) -> None:
        """One more answer."""
        best, why = answer.top(self.args.top, self.classes), answer.why
        if self.args.json:
            classes = [{"class": k, "name": name, "probability": round(p, 6)} for k, name, p in best]
            self.videos.append({"video": printable(answer.video), "error": why or None, "note": answer.note or None, "classes": classes})
        elif self.args.csv:
            for rank, (k, name, p) in enumerate(best, 1):
                self.row(printable(answer.video), rank, k, name, f"{p:.6f}", "", answer.note)
            if answer.probs is None:
                self.row(printable(answer.video), "", "", "", "", why, "")
        else:
            head = printable(answer.video) + ("" if answer.probs is not None else f": not classified: {why}")
            notes = [f"  note: {answer.note}"] if answer.note else []
            print(head, *notes, *(f"  {100 * p:5.1f} %  {name}" for _, name, p in best), sep="\n", flush=True)

    def end(self) -> None:
        """What is printed last, after the last answer or after an interruption."""
        if self.args.json:
            print(json.dumps({**self.told, "videos": self.videos}, indent=1, ensure_ascii=False))


def main(arguments: list[str] | None = None) -> int:
    """Run the command: 0, 1 where a video could not be classified, 2 for what a person can mend."""
    notes = Console(stderr=True, highlight=False, soft_wrap=True)
    found: list[Answer] = []
    try:
        args = parser().parse_args(arguments)
        if args.top < 1:
            raise UserError(f"`--top` (={args.top}) must be at least 1.")
        device, videos = device_of(args.device), videos_of(args.videos)
        net = load(args.checkpoint, statistics=args.statistics)
        facts = facts_of(net)
        classes = class_names(args.classes, facts.num_classes) if args.classes else facts.classes
        recipe = protocol(net, args.views, args.crops)
        printer = Printer(args, classes, used(args, net, recipe))
        columns = (TextColumn("views"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        try:
            # where both streams are one terminal, answers go above the bar; a redirected stdout is left alone
            with Progress(*columns, console=notes, transient=True, redirect_stdout=sys.stdout.isatty()) as bar:
                task = bar.add_task("views", total=None)
                for answer in answers(net, videos, recipe, device, lambda done, total: bar.update(task, completed=done, total=total)):
                    found.append(answer)
                    printer.add(answer)
        finally:
            printer.end()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"Interrupted after {len(found)} videos; their answers are printed.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # who read the answers has left, as head does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 2
    damaged = [answer for answer in found if answer.probs is None]
    if damaged:
        print(f"{len(damaged)} of {len(found)} videos could not be classified: {', '.join(printable(answer.video) for answer in damaged)}", file=sys.stderr)
    return 1 if damaged else 0


if __name__ == "__main__":
    sys.exit(main())
