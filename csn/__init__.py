"""Channel-Separated Convolutional Networks (ICCV 2019): the network, its cost, and the study that tests it.

The diagram, floor by floor (imports go downward only):
    0 spec, sources, recipes       what is run: Variant x Recipe x seed
    1 blocks, depthwise, norm, data, metrics
    2 resnet3d, cost, checkpoints  build(variant, num_classes), count(module, shape), load(file)
    3 train, evaluate              the one training loop, the one multi-view test
    4 execute                      one Run -> one record
    5 table, plots, launch         records -> CSV -> table, verdicts, figures
    6 plan, cli, predict           the flags every table script shares; classify(net, video)

Nothing here imports torch before it is needed: `csn.Variant` is instant, `csn.build` loads it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from csn.spec import Recipe, Run, UserError, Variant

if TYPE_CHECKING:
    from csn.checkpoints.network import load
    from csn.cost import Cost, count
    from csn.predict import classify
    from csn.resnet3d import build, fully_convolutional

__version__ = "0.1.0"
__all__ = ["Cost", "Recipe", "Run", "UserError", "Variant", "build", "classify", "count", "fully_convolutional", "load"]
LAZY = {
    "build": "resnet3d", "fully_convolutional": "resnet3d", "count": "cost", "Cost": "cost", "load": "checkpoints.network", "classify": "predict",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in LAZY:
        return getattr(import_module(f"csn.{LAZY[name]}"), name)
    raise AttributeError(f"module 'csn' has no attribute {name!r}")
