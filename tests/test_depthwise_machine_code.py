"""Our Triton kernels as machine code of a GPU (sm_90), compiled here without one: all tilings compile, nothing spills within their loops, little is idle."""

import re
from itertools import product
from pathlib import Path

import pytest
from machine_code import MISSING, REASON, disassembly

from csn import depthwise_tiles as ours
from csn import depthwise_triton as kernels

KERNELS = {"forward": kernels.forward_kernel, "grad_input": kernels.scatter_kernel, "grad_weight": kernels.weight_kernel}
ONE, TWO = (1, 1, 1), (2, 2, 2)
# All instructions of a thread in the loop over time, for each output element; 27 products are the least. By Triton 3.6 and 3.8.
BOUNDS = {
    ("forward", "bf16", ONE): 52, ("grad_weight", "bf16", ONE): 54,
    ("forward", "fp32", ONE): 44, ("grad_weight", "fp32", ONE): 47,
    ("forward", "bf16", TWO): 83, ("grad_weight", "bf16", TWO): 88, ("grad_input", "bf16", TWO): 64,
    ("forward", "fp32", TWO): 64, ("grad_weight", "fp32", TWO): 73, ("grad_input", "fp32", TWO): 57,
}  # fmt: skip
SPILLED = {("forward", "fp32", TWO): 1}  # instructions in that loop that bring back what did not fit the registers, by Triton 3.8
CHANNELS = 128


@pytest.fixture(autouse=True)
def fresh_cache(tmp_path, monkeypatch):
    """What an earlier version of the kernels left compiled is not looked at."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "triton"))


def machine_code(direction: str, dtype: str, stride: tuple[int, int, int], config: ours.Config, exact: bool, file: Path) -> str:
    """The disassembly. exact: the groups fill the plane."""
    groups, rows, columns, channels, warps, *_ = config
    fixed = {"C": CHANNELS, "ST": stride[0], "SH": stride[1], "SW": stride[2], "EXACT": exact}
    fixed |= {"P": groups, "ROWS": rows, "COLUMNS": columns, "BLOCK": channels}
    types = dict.fromkeys(("x", "y", "g", "gx"), f"*{dtype}") | {"weight": "*fp32", "partial": "*fp32"}
    return disassembly(KERNELS[direction], fixed, types, warps, file)


def inner_loop(listing: str) -> list[str]:
    """The instructions of the shortest loop with products in it, the one over time."""
    instructions, labels, loops = [], {}, []
    for line in listing.splitlines():
        if label := re.match(r"\.(L_x_\d+):", line):
            labels[label[1]] = len(instructions)
        elif code := re.match(r"\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\d+ )?\s*([A-Z0-9_.]+)(.*)", line):
            instructions.append(code[1])
            target = re.search(r"\((\.L_x_\d+)\)", code[2])
            if code[1].startswith("BRA") and target and target[1][1:] in labels:
                loops.append(instructions[labels[target[1][1:]] :])
    return min((loop for loop in loops if any(code.startswith("FFMA") for code in loop)), key=len)


@pytest.mark.skipif(MISSING, reason=REASON)
@pytest.mark.parametrize(("direction", "dtype", "stride"), BOUNDS)
def test_every_tiling_compiles_without_spilling_in_its_loop(direction, dtype, stride, tmp_path):
    configs = ours.configs(direction, stride)
    for config, exact in product(configs if dtype == "bf16" else configs[:1], (True, False) if dtype == "bf16" and stride == ONE else (True,)):
        loop = inner_loop(machine_code(direction, dtype, stride, config, exact, tmp_path / "kernel.cubin"))
        assert sum(code.startswith(("LDL", "STL")) for code in loop) <= SPILLED.get((direction, dtype, stride), 0), (config, exact)
        if exact and config == configs[0]:
            groups, rows, columns, channels, warps, *_ = config
            elements = groups * channels // (32 * warps) * (rows * columns if direction != "grad_input" else 1)
            assert sum(code == "FFMA" for code in loop) == 27 * elements
            assert len(loop) / elements <= BOUNDS[direction, dtype, stride]
            loads, products = ([i for i, code in enumerate(loop) if code.startswith(name)] for name in ("LDG", "FFMA"))
            if dtype == "bf16":  # the next frame is asked for before this one is computed; float32 has no registers for all of it at once
                assert sum(at < max(loads) for at in products) < len(products) / 2


def test_tiles_are_nearly_square_and_fit_the_plane():
    for config, plane, stride, tiles in (
        ((8, 1, 7), (7, 7), (1, 1), (1, 1)),  # one tile of 8 rows holds the plane
        ((8, 1, 7), (56, 56), (1, 1), (1, 56)),  # 8 rows of 7 columns
        ((4, 2, 4), (56, 56), (1, 1), (1, 98)),  # 8 rows of 4 columns
        ((8, 1, 1), (28, 28), (2, 2), (2, 98)),  # 4 rows of 2 columns
        ((16, 1, 2), (1, 1), (1, 1), (2, 1)),  # of 8 rows and 4 columns, one is there
        ((16, 7, 2), (56, 56), (1, 1), (4, 14)),  # 28 rows of 8 columns
    ):
        assert ours.tiling(ours.Config(*config, channels=32, warps=4), plane, stride) == tiles
    for config in ours.CONFIGS + ours.SUM_CONFIGS + ours.STRIDED_CONFIGS + ours.STRIDED_SUM_CONFIGS:
        wide, tiles = ours.tiling(config, (14, 9), (2, 2))
        assert config.groups % wide == 0 and tiles == -(-14 // (config.groups // wide * config.rows)) * -(-9 // (wide * config.columns))
