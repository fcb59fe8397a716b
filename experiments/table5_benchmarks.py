"""Table 5: benchmarks. What is published of CSN-152 on Kinetics-400, Sports-1M, Something-Something V1, UCF101, HMDB51 and DFDC.

Each row names data set, pre-training, test protocol and its cost, the published numbers with their sources, and our number
where the row was run: by training, or by testing a published checkpoint (a run of no training steps).

    python experiments/table5_benchmarks.py --plan                             what every row needs: data, checkpoint, GPU-hours
    python experiments/table5_benchmarks.py --only ir-ig65m --device cuda     test a published network

The table's note tells the sources; file names are those of the model zoo. Sports-1M and HMDB51: no number with a readable
source was found.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from csn.cli import main
from csn.recipes import DFDC, HMDB51_FT, PAPER_32, PAPER_32_FT, SOMETHING_V1, SPORTS1M, UCF101_FT
from csn.spec import Block, Recipe, Variant
from csn.table import Quoted, Row, Table

BLOCKS: dict[str, Block] = {"ir": "bottleneck-D", "ip": "ip"}


TESTED = "tested; val; top-1"
FOLDS = "fine-tuned; ours: fold 1, published: folds unknown; top-1"


def row(label: str, block: str, recipe: Recipe, pretrained: str, protocol: str, *published: tuple[float, str]) -> Row:
    """A CSN-152 under a recipe of its own, beside what is published of it."""
    quoted = tuple(Quoted(value, source=source) for value, source in published)
    return Row(label=label, variant=Variant(block=BLOCKS[block], depth=152), recipe=recipe, pretrained=pretrained, protocol=protocol, published=quoted)


def tested(label: str, block: str, file: str, pretrained: str, *published: tuple[float, str]) -> Row:
    """A published network, tested as it is: trained on no clip."""
    recipe = replace(PAPER_32, pretrained=file, epochs=1, warmup=0, clips_per_epoch=0)
    return row(label, block, recipe, pretrained, TESTED, *published)


TABLE = Table(
    name="table5_benchmarks",
    title="Table 5: benchmarks",
    rows=(
        tested("ir-scratch", "ir", "irCSN_152_kinetics_from_scratch_f98268019.pkl", "none; published weights", (76.5, "zoo"), (76.53, "mmaction2")),
        tested("ip-scratch", "ip", "ipCSN_152_kinetics_from_scratch_f129594342.pkl", "none; published weights", (77.8, "zoo"), (77.80, "mmaction2")),
        tested("ir-sports1m", "ir", "irCSN_152_ft_kinetics_from_sports1m_f101599884.pkl", "Sports-1M; published weights",
               (78.2, "zoo"), (78.57, "mmaction2")),
        tested("ip-sports1m", "ip", "ipCSN_152_ft_kinetics_from_sports1m_f111279053.pkl", "Sports-1M; published weights",
               (78.8, "zoo"), (79.07, "mmaction2"), (79.2, "quoted")),
        tested("ir-ig65m", "ir", "irCSN_152_ft_kinetics_from_ig65m_f126851907.pkl", "IG-65M; published weights", (82.6, "zoo"), (82.568, "log")),
        tested("ip-ig65m", "ip", "ipCSN_152_ft_kinetics_from_ig65m_f133090949.pkl", "IG-65M; published weights", (82.5, "zoo"), (82.68, "mmaction2")),
        row("k400-scratch", "ip", PAPER_32, "", "trained; val; top-1", (77.8, "zoo"), (77.80, "mmaction2")),
        row("k400-sports1m", "ip", PAPER_32_FT, "Sports-1M", "fine-tuned; val; top-1", (78.8, "zoo"), (79.07, "mmaction2"), (79.2, "quoted")),
        row("sports1m", "ip", SPORTS1M, "", "trained; test; hit@1 of label sets"),
        row("something-v1", "ip", SOMETHING_V1, "unknown; here none", "trained; val; top-1", (49.3, "list")),
        row("ucf101", "ip", UCF101_FT, "unknown; here Sports-1M, K400", FOLDS, (94.708, "list")),
        row("hmdb51", "ip", HMDB51_FT, "Sports-1M, K400", FOLDS),
        row("dfdc", "ip", DFDC, "unknown; here Sports-1M, K400", "fine-tuned; ours: every tenth part held out, published: unknown; AUC x 100", (68.1, "list")),
    ),
    note="All rows: CSN-152. Where the source does not name the network (list), ip-CSN-152 stands for it. IG-65M itself is not public: its rows "
         "can be tested, not trained. Sources: zoo: the authors' model zoo (VMZ, c2/tutorials/model_zoo.md); log: their published test log "
         "(c2/tutorials/test.md); mmaction2: its ported weights (configs/recognition/csn/README.md), tested by it; quoted: by later papers; list: a "
         "benchmark listing. No claims: nothing here is a direction the paper reports, and the numbers stand beside each other row by row.",
    figures=("published",),
    scale="paper",
)  # fmt: skip

if __name__ == "__main__":
    sys.exit(main(TABLE))
