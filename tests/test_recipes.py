"""The published recipes: values of their sources, what each data set needs, and the cost that --plan tells."""

from __future__ import annotations

import ast
from dataclasses import fields, replace
from pathlib import Path
from typing import get_args

import pytest
from conftest import run

from csn import recipes
from csn.cluster import SUSTAINED, gpu_seconds
from csn.plan import makespan, spoken
from csn.provenance import REPOSITORY
from csn.recipes import DFDC, HMDB51_FT, MEDIUM, PAPER, PAPER_32, PAPER_32_FT, SCALES, SEEDS, SOMETHING_V1, SPORTS1M, UCF101_FT, VIDEOS
from csn.spec import Recipe, Run, Variant, VideoKind, VideoSet
from csn.table import cost_key, planned_costs

PUBLIC = [recipe for recipe in SCALES.values() if isinstance(recipe.data, VideoSet)]


def test_every_public_set_of_the_paper_has_a_recipe() -> None:
    assert {recipe.data.kind for recipe in PUBLIC} >= {"kinetics400", "sports1m", "something-v1", "ucf101", "hmdb51", "dfdc"}
    assert set(VIDEOS) == set(get_args(VideoKind)) and set(SEEDS) == set(SCALES)


@pytest.mark.parametrize("recipe", PUBLIC, ids=lambda recipe: recipe.scale)
def test_a_public_recipe_is_whole(recipe: Recipe) -> None:
    assert recipe.width == 64 and recipe.final_map == 7 and recipe.resize is not None
    assert recipe.mirror == (not recipe.data.kind.startswith("something"))  # left and right are classes there
    assert recipe.views_per_batch <= recipe.micro_batch or recipe is MEDIUM  # who can train can test
    assert recipe.freeze_bn == bool(recipe.pretrained) == (recipe in (PAPER_32_FT, UCF101_FT, HMDB51_FT, DFDC))


def test_values_of_the_released_scripts() -> None:
    comparisons = (PAPER_32.frames, PAPER_32.stride, PAPER_32.test_clips, PAPER_32.test_crops, PAPER_32.test_crop, PAPER_32.test_dense)
    assert comparisons == (32, 2, 10, 3, 256, True) and PAPER.fps == 30 and PAPER_32.resize == (256, 320)
    assert (UCF101_FT.lr, UCF101_FT.batch, UCF101_FT.epochs, UCF101_FT.clips_per_epoch, UCF101_FT.weight_decay) == (0.0008, 32, 8, 100_000, 5e-3)
    assert (HMDB51_FT.lr, HMDB51_FT.clips_per_epoch) == (0.0016, 40_000)
    assert (MEDIUM.crop, MEDIUM.resize, MEDIUM.pool1, MEDIUM.lr / MEDIUM.batch) == (112, (128, 160), False, PAPER.lr / PAPER.batch)
    assert SPORTS1M.data.classes == 487 and SOMETHING_V1.data.classes == 174


def test_colours_are_normalised_as_by_torchvision_s_video_networks() -> None:
    from torchvision.models.video import R3D_18_Weights

    theirs = R3D_18_Weights.KINETICS400_V1.transforms()
    assert all((recipe.mean, recipe.std) == (tuple(theirs.mean), tuple(theirs.std)) for recipe in PUBLIC)


def test_a_clip_of_something_something_lies_within_its_video() -> None:
    """About 4 seconds of 12 pictures."""
    assert (SOMETHING_V1.frames - 1) * SOMETHING_V1.stride + 1 <= 4 * 12


def test_every_field_that_a_recipe_sets_says_where_it_comes_from() -> None:
    """A comment beside each value of the public recipes, or above the recipe for what follows from its name."""
    source = (REPOSITORY / "csn/recipes.py").read_text()
    lines = source.splitlines()
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and getattr(node.targets[0], "id", "") not in ("SMOKE", "SCALES", "SEEDS"):
            for keyword in node.value.keywords:
                if keyword.arg not in ("scale", "data", "test_crop"):
                    assert "#" in lines[keyword.value.end_lineno - 1], f"{node.targets[0].id}.{keyword.arg}"  # type: ignore[attr-defined, operator]


SWITCHES = {"test_dense", "pretrained", "freeze_bn", "zero_gamma", "compile"}  # off unless a recipe turns them on


def test_a_public_recipe_leaves_no_field_to_a_default() -> None:
    """Each is written out in full, or built on one that is."""
    calls = {
        node.targets[0].id: node.value  # type: ignore[attr-defined]
        for node in ast.parse((REPOSITORY / "csn/recipes.py").read_text()).body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)
    }

    def named(name: str) -> set[str | None]:
        base = {argument.id for argument in calls[name].args if isinstance(argument, ast.Name)}
        return {keyword.arg for keyword in calls[name].keywords}.union(*(named(one) for one in base))

    public = [name for name in calls if getattr(recipes, name) in PUBLIC]
    assert len(public) == len(PUBLIC) == 9
    needed = {field.name for field in fields(Recipe)} - SWITCHES
    assert {name: needed - named(name) for name in public} == {name: set() for name in public}


def test_gpu_hours_by_hand() -> None:
    """6 operations a multiply-add of a training clip, 2 of a view; views of 256 pixels cost (256 / 224)^2 as much."""
    one = Run(variant=Variant(block="bottleneck-D", depth=50), recipe=PAPER_32, seed=0)
    macs = planned_costs()[cost_key(one.variant, PAPER_32)]["flops"]
    train, test = 6 * macs * 45 * 999_936, 2 * macs * (256 / 224) ** 2 * 30 * (240_436 + 19_796)
    assert gpu_seconds([one])[one.name] == pytest.approx((train + test) / SUSTAINED, rel=1e-3)
    assert gpu_seconds([replace(one, variant=replace(one.variant, width=60))]) == {}  # never counted: left out, not 0


def test_the_plan_of_a_public_scale_tells_gpu_hours(tmp_path: Path) -> None:
    done = run("experiments/table3_groups.py", "--plan", "--scale", "medium", "--home", tmp_path)
    text = " ".join(done.stdout.split())
    assert done.returncode == 0, done.stderr
    assert "2.2 GPU-h" in text and "About 16 GPU-hours for what is missing: an estimate" in text and "assumed 10 TFLOP/s" in text
    assert max(len(line) for line in done.stdout.splitlines() if str(tmp_path) not in line) <= 80  # a path is never cut


def test_a_plan_takes_as_long_as_its_longest_queue() -> None:
    assert makespan([37, 37, 37], 2) == 74 and makespan([37], 2) == 37 and makespan([], 2) == 0 and makespan([9, 1, 1, 1], 2) == 9
    assert [spoken(seconds) for seconds in (37.4, 100, 5399, 7384)] == ["37 s", "2 min", "1 h 30 min", "2 h 3 min"]
