"""Table 2: channel interactions. ResNet3D, ir-CSN and ip-CSN at depths 26, 50, 101 and 152: what they cost, what they reach.

The paper's finding: accuracy follows the number of channel interactions, not the number of FLOPs.

    python experiments/table2_interactions.py              run what is missing, then show; costs beside the paper's
    python experiments/table2_interactions.py --plan       what would run; depths 101 and 152 need scale paper

The networks of depths 26 and 50 are those of Table 3, and a run is trained once for both. Costs: as in
table1_architectures. Accuracies: recalled, no readable source was found.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from csn.claims import Claim, Order, Predicts, Shrinks
from csn.cli import main
from csn.spec import Variant
from csn.table import FAMILIES, TABLE4_SEEDS, Quoted, Row, Table, table_of

AFTER = "written after the first runs at scales small and photo"
CSN_50 = ("ir-CSN-50", "ip-CSN-50")
PAPER_COSTS = {(row.variant.block, row.variant.depth): row.paper_cost for row in table_of("table1_architectures").rows}
TOP1: dict[int, tuple[float, ...]] = {26: (65.3, 62.4, 64.6), 50: (69.4, 70.3, 70.8), 101: (70.6, 71.3, 71.8)}


def rows(depth: int) -> tuple[Row, ...]:
    """The three networks of a depth."""
    papers = [Quoted(value, recalled=True) for value in TOP1[depth]] if depth in TOP1 else [None] * 3
    return tuple(
        Row(label=f"{name}-{depth}", variant=Variant(block=block, depth=depth), paper_top1=paper, paper_cost=PAPER_COSTS[block, depth], seeds=TABLE4_SEEDS)
        for (name, block), paper in zip(FAMILIES.items(), papers, strict=True)
    )


TABLE = Table(
    name="table2_interactions",
    title="Table 2: channel interactions",
    rows=rows(26) + rows(50) + rows(101) + rows(152),
    claims=(
        Claim(
            text="Channel interactions predict accuracy, and better than FLOPs do (depths 26 and 50)",
            source="finding A: the amount of channel interaction drives accuracy",
            tests=(Predicts(tuple(f"{name}-{depth}" for depth in (26, 50) for name in FAMILIES), better="interactions_m", worse="gmacs"),),
        ),
        Claim(
            text="The lead of ip-CSN over ir-CSN shrinks from depth 26 to depth 50",
            source="directions reported: in deep nets the ip-ir gap shrinks",
            tests=(Shrinks(wide=("ip-CSN-26", "ir-CSN-26"), narrow=("ip-CSN-50", "ir-CSN-50")),),
        ),
        Claim(
            text="Separating channels lowers cost: GMACs of ResNet3D above ip-CSN above ir-CSN (depths 26 and 50)",
            source=f"finding A: separation lowers cost; {AFTER}",
            tests=tuple(Order((f"ResNet3D-{depth}", f"ip-CSN-{depth}", f"ir-CSN-{depth}"), metric="gmacs") for depth in (26, 50)),
        ),
        Claim(
            text="Separating channels keeps accuracy: both CSNs at most 2 points below ResNet3D (depth 50; the margin is ours)",
            source=f"finding A: separation keeps or raises accuracy; {AFTER}",
            tests=(Order((CSN_50, "ResNet3D-50"), margin=2),),
        ),
        Claim(
            text="Deep nets: both CSNs above ResNet3D (depth 101)",
            source=f"directions reported, depths 50 and more; {AFTER}",
            tests=(Order((("ir-CSN-101", "ip-CSN-101"), "ResNet3D-101")),),
        ),
    ),
    figures=("families", "measured_against_paper"),
)

if __name__ == "__main__":
    sys.exit(main(TABLE))
