"""Table 1: the architectures, and every complexity column of the paper. No training.

    python experiments/table1_architectures.py                 the paper's clips and width, beside the paper's numbers
    python experiments/table1_architectures.py --scale small   the networks of another scale

Sources of the paper's numbers: computed from the paper's architecture independently of this code; the digits in the paper's Table 2 and in the
authors' test log agree.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from csn.cli import main
from csn.spec import Block, Variant
from csn.table import Row, Table

PAPER_COSTS: dict[tuple[Block, int], tuple[str, str, str]] = {
    ("simple", 18): ("22.473", "33.361", "0.268"),
    ("simple", 34): ("39.813", "63.664", "0.473"),
    ("bottleneck", 26): ("14.322", "20.426", "0.4207"),
    ("bottleneck-D", 26): ("4.033", "1.678", "0.2677"),
    ("ip", 26): ("5.048", "2.374", "0.4207"),
    ("bottleneck", 50): ("29.461", "46.927", "5.679"),
    ("bottleneck-D", 50): ("10.578", "13.078", "5.424"),
    ("ip", 50): ("11.914", "14.335", "5.679"),
    ("bottleneck", 101): ("44.747", "85.921", "8.669"),
    ("bottleneck-D", 101): ("14.118", "22.108", "8.271"),
    ("ip", 101): ("15.890", "24.480", "8.669"),
    ("bottleneck", 152): ("63.629", "118.034", "11.043"),
    ("bottleneck-D", 152): ("18.512", "29.552", "10.533"),
    ("ip", 152): ("20.824", "32.841", "11.043"),
}

TABLE = Table(
    name="table1_architectures",
    title="Table 1: architectures",
    rows=tuple(Row(label=f"{block}-{depth}", variant=Variant(block=block, depth=depth), paper_cost=cost) for (block, depth), cost in PAPER_COSTS.items()),
    scale="paper",
    trains=False,
)

if __name__ == "__main__":
    sys.exit(main(TABLE))
