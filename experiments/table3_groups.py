"""Table 3: group sizes. 8- and 16-block networks, simple and bottleneck, from one group to depthwise.

The paper's group study (its figure of accuracy against FLOPs): how much channel interaction does a 3D network need?

    python experiments/table3_groups.py                    run what is missing, then show
    python experiments/table3_groups.py --only simple-D --seeds 0 --home /tmp/again      rerun one row

The paper gives this study as a figure; its numbers for the three families at depths 26 and 50 are those of its Table 2.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from csn.claims import Claim, Order
from csn.cli import main
from csn.spec import Variant
from csn.table import TABLE4_SEEDS, Quoted, Row, Table

AFTER = "written after the first runs at scales small and photo"
GROUPS = (2, 8)
# The seeds of the rows that are no networks of Table 4. Ours: ten at scales small and photo, for of three the intervals are up to 36 points wide;
# 3 to 9 were planned once the first three had been seen, and before they ran.
GROUP_SEEDS = {"small": tuple(range(10)), "photo": tuple(range(10))}
CHEAPER = ("simple-D", "bottleneck-DG4")  # all the 8-block networks of fewer FLOPs than bottleneck-D


def rows(simple_depth: int, depth: int, suffix: tuple[str, str], paper: dict[str, float]) -> tuple[Row, ...]:
    """The rows of one number of blocks: simple and bottleneck networks, from all interactions to none."""
    s, b = suffix
    quoted = {name: Quoted(value, recalled=True) for name, value in paper.items()}
    return (
        Row(label=f"simple{s}", variant=Variant(block="simple", depth=simple_depth), seeds=GROUP_SEEDS),
        *(Row(label=f"simple-G{g}{s}", variant=Variant(block="simple-G", depth=simple_depth, groups=g), seeds=GROUP_SEEDS) for g in GROUPS),
        Row(label=f"simple-D{s}", variant=Variant(block="simple-D", depth=simple_depth), seeds=GROUP_SEEDS),
        Row(label=f"bottleneck{b}", variant=Variant(block="bottleneck", depth=depth), paper_top1=quoted["bottleneck"], seeds=TABLE4_SEEDS),
        *(Row(label=f"bottleneck-G{g}{b}", variant=Variant(block="bottleneck-G", depth=depth, groups=g), seeds=GROUP_SEEDS) for g in GROUPS),
        Row(label=f"bottleneck-D{b}", variant=Variant(block="bottleneck-D", depth=depth), paper_top1=quoted["bottleneck-D"], seeds=TABLE4_SEEDS),
        Row(label=f"bottleneck-DG4{b}", variant=Variant(block="bottleneck-DG", depth=depth, groups=4), seeds=GROUP_SEEDS),
        Row(label=f"ip{b}", variant=Variant(block="ip", depth=depth), paper_top1=quoted["ip"], seeds=TABLE4_SEEDS),
    )


EIGHT = rows(18, 26, ("", ""), {"bottleneck": 65.3, "bottleneck-D": 62.4, "ip": 64.6})
SIXTEEN = rows(34, 50, ("-34", "-50"), {"bottleneck": 69.4, "bottleneck-D": 70.3, "ip": 70.8})

TABLE = Table(
    name="table3_groups",
    title="Table 3: group sizes",
    rows=EIGHT + SIXTEEN,
    claims=(
        Claim(
            text="Taking channel interaction away from 3x3x3 convolutions lowers accuracy",
            source="finding A: the amount of channel interaction drives accuracy",
            tests=(Order(("simple", "simple-G8", "simple-D")),),
        ),
        Claim(
            text="Taking channel interaction away lowers accuracy in bottlenecks and in simple networks of 16 blocks, too",
            source=f"finding A: the amount of channel interaction drives accuracy; {AFTER}",
            tests=(Order(("bottleneck", "bottleneck-G8", "bottleneck-D")), Order(("simple-34", "simple-G8-34", "simple-D-34"))),
        ),
        Claim(
            text="Shallow nets: ResNet3D above ip-CSN above ir-CSN",
            source="directions reported, depth 26",
            tests=(Order(("bottleneck", "ip", "bottleneck-D")),),
        ),
        Claim(
            text="Deep nets: both CSNs above ResNet3D",
            source="directions reported, depth 50",
            tests=(Order((("ip-50", "bottleneck-D-50"), "bottleneck-50")),),
        ),
        Claim(
            text="bottleneck-D has the best accuracy per FLOP (points per GMAC)",
            source="directions reported: best accuracy per FLOP among all blocks",
            tests=(Order(("bottleneck-D", tuple(row.label for row in EIGHT if row.label != "bottleneck-D")), metric="video_top1_per_gmac"),),
        ),
        Claim(
            text="bottleneck-D is a best trade-off: no cheaper network of 8 blocks is as accurate",
            source=f"directions reported: best accuracy per FLOP among all blocks; {AFTER}",
            tests=(Order(("bottleneck-D", CHEAPER)),),
        ),
    ),
    figures=("tradeoffs", "group_sizes"),
)

if __name__ == "__main__":
    sys.exit(main(TABLE))
