"""Our Triton kernels as machine code of a GPU (sm_90), compiled here without one: all tilings compile, nothing spills, little is idle."""

import re
import subprocess
from pathlib import Path

import pytest
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from csn import depthwise_triton as ours

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
KERNELS = {"forward": ours.forward_kernel, "grad_input": ours.scatter_kernel, "grad_weight": ours.weight_kernel}
ONE, TWO = (1, 1, 1), (2, 2, 2)
# All instructions of a thread in the loop over time, for each output element; 27 products are the least. By Triton 3.6 and 3.8.
BOUNDS = {
    ("forward", "bf16", ONE): 50, ("grad_weight", "bf16", ONE): 55,
    ("forward", "fp32", ONE): 51, ("grad_weight", "fp32", ONE): 45,
    ("forward", "bf16", TWO): 88, ("grad_weight", "bf16", TWO): 90, ("grad_input", "bf16", TWO): 74,
    ("forward", "fp32", TWO): 80, ("grad_weight", "fp32", TWO): 67, ("grad_input", "fp32", TWO): 60,
}  # fmt: skip


@pytest.fixture(autouse=True)
def fresh_cache(tmp_path, monkeypatch):
    """What an earlier version of the kernels left compiled is not looked at."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "triton"))


def machine_code(direction: str, dtype: str, stride: tuple[int, int, int], config: ours.Config, file: Path) -> tuple[str, str]:
    """(what cuobjdump says of resources, the disassembly)."""
    kernel = KERNELS[direction]
    groups, columns, channels, warps = config
    fixed = {"ST": stride[0], "SH": stride[1], "SW": stride[2], "P": groups, "COLUMNS": columns, "BLOCK": channels, "FLIP": False}
    types = dict.fromkeys(("x", "y", "g", "gx"), f"*{dtype}") | {"weight": "*fp32", "partial": "*fp32"}
    names = kernel.arg_names
    signature = {name: "constexpr" if name in fixed else types.get(name, "i32") for name in names}
    sixteens = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if name in types or name == "C"}
    source = ASTSource(kernel, signature, {(names.index(name),): value for name, value in fixed.items() if name in names}, sixteens)
    file.write_bytes(triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": warps}).asm["cubin"])
    told = [subprocess.run([TOOLS / tool, flag, file], capture_output=True, text=True, check=True).stdout
            for tool, flag in (("cuobjdump", "--dump-resource-usage"), ("nvdisasm", "-c"))]  # fmt: skip
    return told[0], told[1]


def inner_loop(disassembly: str) -> list[str]:
    """The instructions of the shortest loop with products in it, the one over time."""
    instructions, labels, loops = [], {}, []
    for line in disassembly.splitlines():
        if label := re.match(r"\.(L_x_\d+):", line):
            labels[label[1]] = len(instructions)
        elif code := re.match(r"\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\d+ )?\s*([A-Z0-9_.]+)(.*)", line):
            instructions.append(code[1])
            target = re.search(r"\((\.L_x_\d+)\)", code[2])
            if code[1].startswith("BRA") and target and target[1][1:] in labels:
                loops.append(instructions[labels[target[1][1:]] :])
    return min((loop for loop in loops if "FFMA" in loop), key=len)


@pytest.mark.skipif(not (TOOLS / "nvdisasm").exists(), reason="this Triton has no tools for NVIDIA GPUs")
@pytest.mark.parametrize(("direction", "dtype", "stride"), BOUNDS)
def test_every_tiling_compiles_without_spilling(direction, dtype, stride, tmp_path):
    configs = ours.configs(direction, stride)
    for config in configs if dtype == "bf16" else configs[:1]:
        resources, disassembly = machine_code(direction, dtype, stride, config, tmp_path / "kernel.cubin")
        assert "STACK:0 " in resources and not re.search(r"\b(STL|LDL)\b", disassembly), (config, resources)
        if config == configs[0]:
            groups, columns, channels, warps = config
            loop = inner_loop(disassembly)
            elements = groups * channels // (32 * warps) * (columns if direction != "grad_input" else 1)
            assert sum(code == "FFMA" for code in loop) == 27 * elements
            assert len(loop) / elements <= BOUNDS[direction, dtype, stride]
            loads, products = ([i for i, code in enumerate(loop) if code.startswith(name)] for name in ("LDG", "FFMA"))
            assert sum(at < max(loads) for at in products) < len(products) / 2  # the next frame is asked for before this one is computed


def test_tiles_are_nearly_square_and_fit_the_plane():
    assert ours.tiling((8, 7, 32, 4), (7, 7), (1, 1)) == (1, 1)  # one tile of 8 rows holds the plane
    assert ours.tiling((8, 7, 32, 4), (56, 56), (1, 1)) == (1, 56)  # 8 rows of 7 columns
    assert ours.tiling((32, 2, 32, 8), (56, 56), (1, 1)) == (4, 49)  # 8 rows of 8 columns
    assert ours.tiling((16, 2, 32, 4), (1, 1), (1, 1)) == (2, 1)  # of 8 rows and 4 columns, one is there
    for config in ours.MAP_CONFIGS + ours.SUM_CONFIGS:
        wide, tiles = ours.tiling(config, (14, 9), (2, 2))
        assert config[0] % wide == 0 and tiles == -(-14 // (config[0] // wide)) * -(-9 // (wide * config[1]))
