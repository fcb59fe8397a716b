"""Variant, Recipe, Run: refused where they are made, named by their content."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from csn.recipes import PAPER, SCALES, SMALL, SMOKE, by_scale, recipe_of
from csn.spec import MovingDigits, Photos, Recipe, Run, UserError, Variant, VideoSet


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"block": "dense"}, r"`block` \(=dense\) must be one of simple, simple-G"),
        ({"depth": 20}, r"`depth` \(=20\) must be one of 18, 26"),
        ({"block": "simple", "depth": 50}, r"`depth` \(=50\) must be one of 18, 34 for block 'simple'"),
        ({"block": "bottleneck-G", "groups": 3}, r"`groups` \(=3\) must divide `width` \(=64\)\."),
        ({"block": "bottleneck-G", "groups": 1}, r"`groups` \(=1\) must be at least 2"),
        ({"block": "ip", "groups": 2}, r"`groups` \(=2\) must be 1 for block 'ip'"),
        ({"block": "bottleneck", "interior_relu": True}, "`interior_relu`"),
        ({"width": 0}, "`width`"),
        ({"pool1": "no"}, r"`pool1` \(='no'\) must be True or False"),
        ({"width": 8.5}, r"`width` \(=8.5\) must be a whole number\."),
        ({"depth": "50"}, r"`depth` \(='50'\) must be a whole number\."),
    ],
)
def test_a_wrong_variant_is_refused_with_name_value_and_rule(fields: dict, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        Variant(**fields)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"frames": 6}, r"`frames` \(=6\) at stride 4 span 21 frames, more than the 20 of a video"),
        ({"frames": 1}, r"`frames` \(=1\) must be at least 2"),
        ({"crop": 16}, r"`crop` \(=16\) must be at least 32"),
        ({"micro_batch": 5}, r"`micro_batch` \(=5\) must divide `batch`"),
        ({"warmup": 30}, r"`warmup` \(=30\) must lie below"),
        ({"warmup": -1}, r"`warmup` \(=-1\)"),
        ({"clips_per_epoch": 100}, "must be a multiple of `batch`"),
        ({"test_crops": 2}, "`test_crops`"),
        ({"stride": 0}, "`stride`"),
        ({"resize": (44, 36)}, r"`resize` \(=\(44, 36\)\) must be \(low, high\)"),
        ({"resize": (31, 36)}, r"`crop` \(=32\) must not exceed the low end of `resize` \(=31\)"),
        ({"resize": (36, 44), "test_crop": 40}, r"`test_crop` \(=40\) must not exceed"),
        ({"test_dense": True, "crop": 40}, r"`test_crop` \(=32\) must be at least `crop` \(=40\) with `test_dense`"),
        ({"views_per_batch": 0}, "`views_per_batch`"),
        ({"batch": 0}, r"`batch` \(=0\) must be at least 1"),
        ({"micro_batch": 0}, r"`micro_batch` \(=0\) must be at least 1"),
        ({"batch": -16, "micro_batch": -16}, r"`batch` \(=-16\)"),
        ({"test_clips": 0}, "`test_clips`"),
        ({"clips_per_epoch": -640}, "`clips_per_epoch`"),
        ({"lr": 0.0}, r"`lr` \(=0.0\) must be above 0 and finite"),
        ({"lr": float("nan")}, "`lr`"),
        ({"momentum": 1.0}, "`momentum`"),
        ({"momentum": -0.1}, r"`momentum` \(=-0.1\) must be at least 0 and below 1"),
        ({"weight_decay": -1e-4}, "`weight_decay`"),
        ({"std": (0.2, 0.0, 0.2)}, "`std`"),
        ({"precision": "fp16"}, r"`precision` \(=fp16\) must be fp32 or bf16"),
        ({"fps": 30.0}, r"`fps` \(=30.0\) belongs to sets of real video only"),
        ({"fps": 0.0, "data": VideoSet(kind="ucf101")}, r"`fps` \(=0.0\) must be above 0 and finite, or None"),
        ({"fps": -30.0, "data": VideoSet(kind="ucf101")}, r"`fps` \(=-30.0\) must be above 0"),
        ({"stride": 2.0}, r"`stride` \(=2.0\) must be a whole number\."),
        ({"epochs": 1.5}, r"`epochs` \(=1.5\) must be a whole number\."),
        ({"test_crop": 0}, r"`test_crop` \(=0\) must be at least 1"),
        ({"test_crop": 48}, r"`test_crop` \(=48\) must not exceed the 40 pixels of a video of moving-digits"),
        ({"crop": 48}, r"`crop` \(=48\) must not exceed the 40 pixels"),
        ({"mean": (0.5,)}, r"`mean` \(=\(0.5,\)\) must be three finite numbers"),
        ({"mean": (0.5, float("nan"), 0.5)}, "`mean`"),
        ({"std": (0.2, 0.2)}, r"`std` \(=\(0.2, 0.2\)\) must be three"),
        ({"scale": "my/own"}, r"`scale` \(=my/own\) must be a name for files: without /, not beginning with a dot"),
        ({"scale": ".."}, "`scale`"),
        ({"scale": ""}, "`scale`"),
        ({"resize": (36.0, 44)}, r"`resize` \(=\(36.0, 44\)\) must be two whole numbers, or None"),
        ({"resize": 40}, r"`resize` \(=40\) must be two"),
        ({"compile": None}, r"`compile` \(=None\) must be True or False"),
        ({"mirror": True}, r"`mirror` \(=True\) must be False for moving-digits, whose classes tell left from right"),
        ({"mirror": True, "data": VideoSet(kind="something-v2")}, "must be False for something-v2"),
    ],
)
def test_a_wrong_recipe_is_refused(fields: dict, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        replace(SMALL, **fields)


def test_wrong_data_is_refused() -> None:
    assert MovingDigits(train=np.int64(80), test=80) == MovingDigits(train=80, test=80)
    for wrong in (lambda: MovingDigits(train=80.0, test=80), lambda: Photos(train=80.0, test=80), lambda: VideoSet(kind="ucf101", fold=1.0)):  # type: ignore[arg-type]
        with pytest.raises(UserError, match="must be a whole number"):
            wrong()
    with pytest.raises(UserError, match=r"`train` \(=100\) must be a multiple of 80"):
        MovingDigits(train=100, test=80)
    with pytest.raises(UserError, match=r"`test` \(=80\) must be a multiple of 32 \(4 digits x 8 motions\)"):
        MovingDigits(train=320, test=80, digits=4)
    with pytest.raises(UserError, match=r"`digits` \(=11\) must be 2 to 10"):
        MovingDigits(train=88, test=88, digits=11)
    with pytest.raises(UserError, match="`size`"):
        MovingDigits(train=80, test=80, size=44)
    with pytest.raises(UserError, match="`fold`"):
        VideoSet(kind="ucf101", fold=4)
    with pytest.raises(UserError, match=r"`classes` \(=0\) must be at least 1"):
        VideoSet(kind="folder")
    with pytest.raises(UserError, match=r"`classes` \(=100\) must be 101 for ucf101"):
        VideoSet(kind="ucf101", classes=100)
    assert VideoSet(kind="ucf101").classes == VideoSet(kind="ucf101", classes=101).classes == 101


def test_numbers_of_other_libraries_are_plain_ones() -> None:
    """np.arange gives np.int64; equal numbers give equal names."""
    plain = Run(variant=Variant(width=8), recipe=SMOKE, seed=1)
    one = np.arange(2)[1]
    other = Run(variant=Variant(width=np.int64(8)), recipe=replace(SMOKE, batch=np.int32(SMOKE.batch), mean=np.array(SMOKE.mean, np.float64)), seed=one)
    assert other == plain and other.name == plain.name == Run(variant=Variant(width=8), recipe=SMOKE, seed=True).name
    assert replace(SMOKE, mean=(0, 0, 0)) == replace(SMOKE, mean=[0.0, 0.0, 0.0])
    assert Run.from_dict(other.to_dict()) == plain
    with pytest.raises(UserError, match=r"`seed` \(=1.0\) must be a whole number"):
        Run(variant=Variant(), recipe=SMOKE, seed=1.0)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"must be at least 0 and below 2\*\*63"):
        Run(variant=Variant(), recipe=SMOKE, seed=2**63)


def test_a_seed_below_0_is_refused() -> None:
    with pytest.raises(UserError, match=r"`seed` \(=-1\) must be at least 0"):
        Run(variant=Variant(), recipe=SMALL, seed=-1)


@pytest.mark.parametrize("recipe", SCALES.values(), ids=lambda r: r.scale)
def test_a_run_survives_json_and_equal_content_has_an_equal_name(recipe: Recipe) -> None:
    run = Run(variant=Variant(block="ip", depth=50, width=recipe.width, interior_relu=True), recipe=recipe, seed=3)
    again = Run.from_dict(run.to_dict())
    assert again == run
    assert again.name == run.name
    assert run.name.startswith(f"{recipe.scale}-ip-50-w{recipe.width}-relu-s3-")


def test_equal_numbers_give_equal_names() -> None:
    films = replace(SCALES["medium"], lr=1, fps=30, momentum=0)
    floats = replace(films, lr=1.0, fps=30.0, momentum=0.0)
    names = {Run(variant=Variant(), recipe=films, seed=0).name, Run(variant=Variant(pool1=np.True_), recipe=floats, seed=0).name}  # type: ignore[arg-type]
    mirrored = replace(films, mirror=True, compile=True, resize=(128, 160))
    for other in (replace(mirrored, mirror=1), replace(mirrored, compile=np.True_), replace(mirrored, resize=[np.int64(128), 160])):  # type: ignore[arg-type]
        assert other == mirrored and Run(variant=Variant(), recipe=other, seed=0).name == Run(variant=Variant(), recipe=mirrored, seed=0).name
    assert films == floats and len(names) == 1


def test_any_change_of_content_changes_the_name() -> None:
    run = Run(variant=Variant(), recipe=SMALL, seed=0)
    others = [replace(run, seed=1), replace(run, variant=Variant(pool1=False)), replace(run, recipe=replace(SMALL, lr=0.2)),
              replace(run, recipe=replace(SMALL, data=replace(SMALL.data, noise=5)))]  # fmt: skip
    assert len({run.name, *(o.name for o in others)}) == 5


def test_sets_of_equal_numbers_are_told_apart() -> None:
    names = set()
    for data in (MovingDigits(train=800, test=800), Photos(train=800, test=800), MovingDigits(train=80, test=80), Photos(train=80, test=80)):
        names.add(Run(variant=Variant(), recipe=replace(SMOKE, data=data), seed=0).name)
    assert len(names) == 4


def test_the_name_covers_only_what_differs_from_the_defaults() -> None:
    """A field added later, at its default, must not orphan results that exist: names of released runs are fixed."""
    run = Run(variant=Variant(block="simple", depth=18, width=16, pool1=False), recipe=SMALL, seed=0)
    assert run.name == "small-simple-18-w16-nopool-s0-01d34b8aa2"


def test_damaged_run_descriptions_are_refused() -> None:
    content = Run(variant=Variant(), recipe=SMOKE, seed=0).to_dict()
    with pytest.raises(UserError, match="damaged or of another version"):
        Run.from_dict({**content, "recipe": {**content["recipe"], "colour": 1}})
    with pytest.raises(UserError, match="damaged or of another version"):
        Run.from_dict({"variant": content["variant"]})


def test_two_recipes_of_one_scale_are_refused() -> None:
    assert by_scale((SMOKE, SMALL)) == {"smoke": SMOKE, "small": SMALL}
    with pytest.raises(UserError, match=r"`scale` \(=smoke\) must be another for each recipe of csn.recipes.ALL"):
        by_scale((SMOKE, SMALL, replace(SMOKE, epochs=1, warmup=0)))


def test_unknown_scale_lists_the_scales() -> None:
    with pytest.raises(UserError, match=r"`scale` \(=huge\) must be one of smoke, small"):
        recipe_of("huge")


def test_the_paper_recipe_holds_the_published_values() -> None:
    assert (PAPER.frames, PAPER.stride, PAPER.crop, PAPER.batch, PAPER.micro_batch, PAPER.lr) == (8, 2, 224, 512, 8, 0.64)
    assert (PAPER.epochs, PAPER.warmup, PAPER.momentum, PAPER.weight_decay, PAPER.test_clips) == (45, 10, 0.9, 1e-4, 10)
