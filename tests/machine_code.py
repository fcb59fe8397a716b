"""A Triton kernel as machine code of a GPU (sm_90), compiled without one."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
MISSING = not (TOOLS / "nvdisasm").exists()
REASON = "this Triton has no tools for NVIDIA GPUs"


def compiled(kernel: Any, fixed: Mapping[str, Any], types: Mapping[str, str], warps: int) -> Any:
    """What Triton makes of a kernel, asm and metadata: arguments in fixed compiled in, those in types of these types, pointers to 16-byte boundaries,
    and the others whole numbers."""
    names = kernel.arg_names
    signature = {name: "constexpr" if name in fixed else types.get(name, "i32") for name in names}
    sixteens = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if signature[name].startswith("*")}
    source = ASTSource(kernel, signature, {(names.index(name),): value for name, value in fixed.items() if name in names}, sixteens)
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": warps})


def disassembly(kernel: Any, fixed: Mapping[str, Any], types: Mapping[str, str], warps: int, file: Path) -> str:
    """The machine code of `compiled` as text."""
    file.write_bytes(compiled(kernel, fixed, types, warps).asm["cubin"])
    return subprocess.run([TOOLS / "nvdisasm", "-c", file], capture_output=True, text=True, check=True).stdout
