"""Tables: rows in order, what the paper printed of them, claims fixed before the runs, and the Runs that fill them."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from pathlib import Path

from csn.claims import Claim
from csn.files import write_atomic
from csn.provenance import REPOSITORY
from csn.recipes import SEEDS
from csn.spec import Block, Embedded, Recipe, Run, UserError, Variant, require

# Scales of short schedules on little data hold no deeper networks: these take more steps to leave chance. Ours.
DEEPEST = dict.fromkeys(("smoke", "small", "photo", "medium"), 50)
# The seeds of the rows of Table 4, in every table that has the same runs. Ours. Twenty, for at five the differences of paired seeds had standard
# deviations of 2 to 7 points, so that 20 tell 1 to 3 points apart; 5 to 19 were planned once the first five had been seen, and before they ran.
TABLE4_SEEDS = dict.fromkeys(("small", "photo"), tuple(range(20)))
SHOWN = ("train_top1", "clip_top1", "video_top1", "gap", "auc")  # metrics that have a column in what is printed
# The networks of Tables 2 and 4: the paper's names of blocks.
FAMILIES: dict[str, Block] = {"ResNet3D": "bottleneck", "ir-CSN": "bottleneck-D", "ip-CSN": "ip"}


@dataclass(frozen=True)
class Quoted:
    """A published number. recalled: no readable source was found; shown with a dagger, used by no claim and no test. source: where it stands."""

    value: float
    recalled: bool = False
    source: str = ""

    def __str__(self) -> str:
        return f"{self.value:g}" + ("†" if self.recalled else "")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One network of a table. variant: at the paper's width; `at` gives it at the width of a scale.

    paper_top1: Kinetics-400 val video@1. paper_cost: GMACs, M parameters, G interactions at 8 x 224 x 224, as text.
    recipe: the row's own, where the rows of a table differ in it; it runs at scale paper only. published: the numbers that
    stand beside ours; pretrained: what its network was trained on before, in words; protocol: of the published number
    and of ours, in words. seeds: of a scale, where they are not those of csn.recipes. videos: training videos, as a multiple of
    the scale's; the schedule stays, so that a row of more videos sees each less often. epochs: those of the scale, and of its warm-up, times this.
    """

    label: str
    variant: Variant
    paper_top1: Quoted | None = None
    paper_cost: tuple[str, str, str] | None = None
    recipe: Recipe | None = None
    published: tuple[Quoted, ...] = ()
    pretrained: str = ""
    protocol: str = ""
    seeds: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    videos: float = 1
    epochs: int = 1

    def under(self, recipe: Recipe) -> Recipe:
        """The Recipe of this row at the scale of recipe. Raises UserError where the scale's data has no such number of training videos."""
        own = self.recipe or recipe
        if self.epochs != 1:
            own = replace(own, epochs=own.epochs * self.epochs, warmup=own.warmup * self.epochs)
        if self.videos == 1:
            return own
        if not isinstance(own.data, Embedded):
            raise UserError(f"{self.videos:g} times the training videos of {own.data.kind} cannot be drawn; scales of built-in data draw theirs.")
        return replace(own, data=replace(own.data, train=round(own.data.train * self.videos)))

    def at(self, recipe: Recipe) -> Variant:
        """The Variant at a scale. Raises UserError when the scale cannot hold it."""
        own = self.under(recipe)
        return replace(self.variant, width=own.width, pool1=own.pool1)

    def seeds_at(self, scale: str) -> tuple[int, ...]:
        """The seeds planned: those run by default, all of which a mean needs."""
        return self.seeds.get(scale, SEEDS[scale])

    def unfit(self, recipe: Recipe) -> str | None:
        """Why nothing of this row can be run at the scale, or None."""
        if self.variant.depth > (deepest := DEEPEST.get(recipe.scale, 152)):
            return f"depth {self.variant.depth} is too deep for scale {recipe.scale}, which holds depths up to {deepest}; scale paper holds it."
        if self.recipe is not None and recipe.scale != "paper":
            return f"its own recipe (on {self.recipe.data.kind}) belongs to scale paper."
        if self.recipe is None and recipe.pretrained:
            return (f"scale {recipe.scale} begins from {recipe.pretrained}, the file of one network, and is a row of table5_benchmarks.py; "
                    "`python -m csn.finetune` begins from any other.")  # fmt: skip
        try:
            self.at(recipe)
        except UserError as error:
            return str(error)
        return None


@dataclass(frozen=True, kw_only=True)
class Table:
    """name: of the script and the CSV. title: printed above. rows in order. claims fixed before the runs.

    metrics: the columns shown of a row, of csn.claims.value. figures: names of functions of csn.plots, (Results) -> Figure;
    the first one's file has the table's name. curves: whether learning curves are kept. scale: the default one.
    trains: whether there is anything to run, or costs only.
    """

    name: str
    title: str
    rows: tuple[Row, ...]
    claims: tuple[Claim, ...] = ()
    note: str = ""
    metrics: tuple[str, ...] = ("train_top1", "clip_top1", "video_top1")
    figures: tuple[str, ...] = ()
    curves: bool = False
    scale: str = "small"
    trains: bool = True

    def __post_init__(self) -> None:
        known = [row.label for row in self.rows]
        for label in known:
            require(known.count(label) == 1, "rows", label, f"of {self.name} must have different labels")
        for metric in self.metrics:
            require(metric in SHOWN, "metrics", metric, f"of {self.name} must be of {', '.join(SHOWN)}")
        for claim in self.claims:
            require(bool(claim.parts()), "claims", claim.text, f"of {self.name} must compare two rows at least")
        for row in (row for claim in self.claims for part in claim.parts() for row in part.rows):
            require(row in known, "claims", row, f"must name rows of {self.name}, which are {', '.join(known)}")

    @property
    def number(self) -> int:
        """The number in its name, 0 where there is none."""
        found = re.match(r"table(\d+)", self.name)
        return int(found[1]) if found else 0

    def chosen(self, labels: Sequence[str] | None) -> list[Row]:
        """The rows of these labels, all of them for None. Raises UserError listing the rows."""
        known = [row.label for row in self.rows]
        for label in labels or ():
            if label not in known:
                raise UserError(f"`--only` names an unknown row (={label}); the rows of {self.name} are {', '.join(known)}.")
        return [row for row in self.rows if not labels or row.label in labels]


def table_of(name: str) -> Table:
    """The TABLE of experiments/<name>.py. Raises UserError when there is none, or the file is wrong."""
    if not name.startswith("table") or not (REPOSITORY / "experiments" / f"{name}.py").is_file():
        raise UserError(f"There is no table {name}: experiments/{name}.py does not exist.")
    sys.path.insert(0, str(REPOSITORY / "experiments"))
    try:
        table: Table = __import__(name).TABLE
    except Exception as error:  # whatever someone's own table raises: every other table looks for shared runs in it
        raise UserError(f"experiments/{name}.py cannot be used ({type(error).__name__}: {error}); mend it, or move it away.") from None
    finally:
        sys.path.pop(0)
    if table.name != name:
        raise UserError(f"The `name` (={table.name}) of the table in experiments/{name}.py must be {name}: its results are called so.")
    return table


def every_table() -> list[Table]:
    """The tables of experiments/, in the order of their numbers."""
    return sorted((table_of(path.stem) for path in sorted((REPOSITORY / "experiments").glob("table*.py"))), key=lambda table: table.number)


def runs_of(rows: Iterable[Row], recipe: Recipe, seeds: Iterable[int] | None = None) -> list[tuple[Row, Run]]:
    """The Runs of rows x seeds (None: those planned for each row), seeds outermost so that every row has one result early.

    Rows the scale cannot hold are left out.
    """
    fit = [row for row in rows if row.unfit(recipe) is None]
    every = sorted({seed for row in fit for seed in row.seeds_at(recipe.scale)}) if seeds is None else seeds
    return [(row, Run(variant=row.at(recipe), recipe=row.under(recipe), seed=seed))
            for seed in every for row in fit if seeds is not None or seed in row.seeds_at(recipe.scale)]  # fmt: skip


def unfit_rows(rows: Iterable[Row], recipe: Recipe) -> list[str]:
    """'rows: reason', a sentence for each reason for which the scale cannot hold rows."""
    told: dict[str, list[str]] = {}
    for row in rows:
        if reason := row.unfit(recipe):
            told.setdefault(reason, []).append(row.label)
    return [f"{', '.join(labels)}: {reason}" for reason, labels in told.items()]


COSTS = REPOSITORY / "results" / "costs.json"
COUNTS_AT = ContextVar("COUNTS_AT", default=REPOSITORY)  # the --home whose results/costs.json takes new counts


def cost_key(variant: Variant, recipe: Recipe, view: bool = False) -> str:
    """What a count is remembered by: that of a training clip, or of a view of the test."""
    side = recipe.test_crop if view else recipe.crop
    dense = " dense" if view and recipe.test_dense else ""
    return f"{variant.slug} {recipe.data.classes} classes {recipe.frames}x{side}x{side}{dense}"


def planned_costs() -> dict[str, dict[str, int]]:
    """{cost_key: params, flops, interactions} as counted before, so that planning needs no torch; {} when there is none."""
    return _read(counts_file()) | _read(COSTS)


def counts_file() -> Path:
    """Where new counts go."""
    home = COUNTS_AT.get()
    return COSTS if home == REPOSITORY else home / "results" / "costs.json"


def _read(path: Path) -> dict[str, dict[str, int]]:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError):
        return {}


def count_costs(runs: Iterable[Run], view: bool = False) -> None:
    """Count from the real module what planned_costs lacks, and remember it."""
    known = planned_costs()
    new = {key: r for r in runs if (key := cost_key(r.variant, r.recipe, view)) not in known}
    if not new:
        return
    import torch

    from csn.cost import count
    from csn.resnet3d import build, fully_convolutional

    for key, run in new.items():
        recipe, side = run.recipe, run.recipe.test_crop if view else run.recipe.crop
        with torch.device("meta"):
            net = build(run.variant, recipe.data.classes, recipe.frames)
            if view and recipe.test_dense:
                net = fully_convolutional(net, recipe.final_map)
        cost = count(net, (3, recipe.frames, side, side))
        known[key] = {"params": cost.params, "flops": cost.flops, "interactions": cost.interactions}
    with suppress(UserError):  # a read-only installation plans without cost columns
        write_atomic(counts_file(), json.dumps(known, indent=0, sort_keys=True).encode() + b"\n", durable=False)
