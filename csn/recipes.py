"""The scales: one Recipe each. Results of different scales never mix.

Sources of the values: "paper" or "VMZ" (the authors' released scripts); "ours" where the scale itself is ours.
"""

from __future__ import annotations

from csn.spec import MovingDigits, Recipe, UserError

SMOKE = Recipe(
    scale="smoke",  # ours: for tests; the whole path in seconds, no meaning in the accuracies
    data=MovingDigits(train=80, test=80, size=40, frames=10),
    width=8,
    frames=4,
    stride=2,
    crop=32,
    epochs=2,
    warmup=1,
    clips_per_epoch=64,
    lr=0.05,
    batch=32,
    micro_batch=8,
    test_clips=2,
    test_crop=32,
)

SMALL = Recipe(
    scale="small",
    data=MovingDigits(train=2400, test=800, size=40, frames=20),  # ours
    width=16,  # ours: a quarter of the paper's 64
    frames=8,  # paper: ablations use 8 frames
    stride=2,  # paper
    crop=32,  # ours
    mirror=False,  # ours: a mirrored "left" is a "right"
    epochs=6,  # ours: one to two minutes a row
    warmup=1,  # VMZ: 10 of 45; ours in proportion, rounded down
    clips_per_epoch=2400,  # ours: every video once
    lr=0.1,  # ours
    batch=32,  # ours
    micro_batch=32,  # ours, for speed; VMZ: batch norm over the 8 clips of a GPU
    test_clips=2,  # ours: the first and the last clip of a 20-frame video; VMZ: 10 clips of a 10-second video
    test_crop=32,
)

SCALES: dict[str, Recipe] = {recipe.scale: recipe for recipe in (SMOKE, SMALL)}
SEEDS: dict[str, tuple[int, ...]] = {"smoke": (0,), "small": (0, 1, 2)}


def recipe_of(scale: str) -> Recipe:
    """The Recipe of a scale. Raises UserError listing the scales."""
    if scale not in SCALES:
        raise UserError(f"`scale` (={scale}) must be one of {', '.join(SCALES)}.")
    return SCALES[scale]
