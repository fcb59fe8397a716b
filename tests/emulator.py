"""Compiled Triton kernels where there is no GPU: an emulator of PTX, the assembly language of NVIDIA's GPUs.

`Emulated` stands in for a kernel: it is compiled for an H100 (sm_90), as on one, and what the compiler made of it is carried out, program by
program, on tensors of the CPU. The warps of a program run one after the other from barrier to barrier, in an order of chance, so that
a barrier that is missing shows in the results. Threads of a warp are in step; none may leave it at a branch. An instruction that is
not known raises NotImplementedError with its name.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate, product
from typing import Any

import numpy as np
import torch
from machine_code import compiled
from numpy.typing import NDArray

Lanes = NDArray[Any]  # one value for each thread of a warp
LANES = np.arange(32)
BITS: dict[int, Any] = {1: np.bool_, 8: np.uint8, 16: np.uint16, 32: np.uint32, 64: np.uint64}
TYPES = {torch.uint8: "*u8", torch.bfloat16: "*bf16", torch.float16: "*fp16", torch.float32: "*fp32", torch.int64: "*i64"}


class Emulated:
    """kernel[grid](arguments) as on a GPU."""

    def __init__(self, kernel: Any, seed: int = 0) -> None:
        self.kernel, self.order = kernel, random.Random(seed)

    def __getitem__(self, grid: Sequence[int]) -> Callable[..., None]:
        def launch(*args: Any, num_warps: int = 4, **more: Any) -> None:
            given = dict(zip(self.kernel.arg_names, args, strict=False)) | more
            constant = {p.name for p in self.kernel.params if p.is_constexpr}
            fixed = {name: value for name, value in given.items() if name in constant}
            types = {name: TYPES[v.dtype] if isinstance(v, torch.Tensor) else "fp32" if isinstance(v, float) else "i32" for name, v in given.items()}
            built = compiled(self.kernel, fixed, types, num_warps)
            values = [given[name] for name in self.kernel.arg_names if name not in constant]
            run(Program(built.asm["ptx"]), grid, values, built.metadata.shared, self.order)

        return launch


class Program:
    """The one entry of a PTX text: its instructions as (predicate, name, operands), labels, parameters, and threads of a program."""

    def __init__(self, text: str) -> None:
        head, _, body = text.partition("\n{")
        self.parameters = re.findall(r"\.param .*?(\w+_param_\d+)", head)
        self.threads = int(re.findall(r"\.reqntid (\d+)", head)[0])
        self.code: list[tuple[str, str, list[Any]]] = []
        self.labels: dict[str, int] = {}
        for line in map(str.strip, re.sub(r"//.*", "", body).splitlines()):
            if label := re.fullmatch(r"(\$\w+):", line):
                self.labels[label[1]] = len(self.code)
            elif statement := re.fullmatch(r"(?:@(!?%\w+)\s+)?([a-z][\w.:]*)\s*(.*);", line):
                operands = re.findall(r"\{[^}]*\}|\[[^\]]*\]|[^,\s]+", statement[3])
                parts = [re.split(r"\s*,\s*", one[1:-1].strip()) if one[0] == "{" else one for one in operands]
                self.code.append((statement[1] or "", statement[2], parts))


def run(program: Program, grid: Sequence[int], arguments: Sequence[Any], shared: int, order: random.Random) -> None:
    """Every program of the grid in turn, on tensors, which are changed, and numbers."""
    views = [one.as_strided((one.numel(),), (1,)).view(torch.uint8).numpy() if isinstance(one, torch.Tensor) else None for one in arguments]
    places = list(accumulate((0 if view is None else len(view) // 256 * 256 + 512 for view in views), initial=256))
    memory = np.zeros(places.pop(), np.uint8)
    starts = [one.data_ptr() if isinstance(one, torch.Tensor) else -k for k, one in enumerate(arguments)]
    places = [places[starts.index(start)] for start in starts]  # a tensor given twice is one
    for at, view in zip(places, views, strict=True):
        if view is not None:
            memory[at : at + len(view)] = view
    values = [value if view is None else at for at, view, value in zip(places, views, arguments, strict=True)]
    parameters = dict(zip(program.parameters, [*values, 0, 0], strict=True))  # two of Triton's own follow
    for z, y, x in product(*(range(n) for n in reversed((*grid, 1, 1)[:3]))):
        place = {f"%ctaid.{a}": n for a, n in zip("xyz", (x, y, z), strict=True)} | {f"%nctaid.{a}": n for a, n in zip("xyz", (*grid, 1, 1), strict=False)}
        own = np.zeros(max(shared, 16), np.uint8)
        warps = [Warp(parameters, place, w, memory, own) for w in range(program.threads // 32)]
        going = [warp.steps(program) for warp in warps]
        while going:
            order.shuffle(going)
            going = [one for one in going if next(one, "ended") != "ended"]
    for at, view in zip(places, views, strict=True):
        if view is not None:
            view[:] = memory[at : at + len(view)]


def brain(bits: Lanes) -> Lanes:
    """Brain floats, as 16 bits, in float32."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def to_brain(floats: Lanes) -> Lanes:
    """float32 as brain floats, in 16 bits, rounded to the nearest, ties to even."""
    bits = np.ascontiguousarray(floats, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def to_half(floats: Lanes) -> Lanes:
    return floats.astype(np.float16).view(np.uint16)


def rounded_sum(a: Lanes, b: Lanes, c: Lanes) -> Lanes:
    """a b + c, rounded once (but for float64's own rounding) where they are floats."""
    return (a.astype(np.float64) * b + c).astype(a.dtype) if a.dtype.kind == "f" else a * b + c


def shifted(by: Callable[..., Lanes]) -> Callable[..., Lanes]:
    def shift(a: Lanes, n: Lanes) -> Lanes:
        size = 8 * a.dtype.itemsize
        if a.dtype.kind == "i":
            return by(a, np.minimum(n, size - 1).astype(a.dtype))
        return np.where(n >= size, 0, by(a, n.astype(a.dtype))).astype(a.dtype)

    return shift


def field(a: Lanes, start: Lanes, length: Lanes) -> Lanes:
    """`length` bits of a from bit `start` on, as a signed number where a is one."""
    start, length = start.astype(np.int64), length.astype(np.int64)
    found = (a.view(BITS[8 * a.dtype.itemsize]).astype(np.int64) >> start) & ((1 << length) - 1)
    if a.dtype.kind == "i":
        found = np.where(found >> (length - 1) & 1, found - (1 << length), found)
    return found.astype(a.dtype)


def picked_bytes(a: Lanes, b: Lanes, which: Lanes) -> Lanes:
    both = np.concatenate([np.ascontiguousarray(one).view(np.uint8).reshape(32, 4) for one in (a, b)], 1)
    return np.take_along_axis(both, (which[:, None] >> 4 * np.arange(4, dtype=np.uint32) & 7).astype(np.int64), 1).view(np.uint32).reshape(32)


def quotient(a: Lanes, b: Lanes) -> Lanes:
    return a / b if a.dtype.kind == "f" else np.trunc(a.astype(np.float64) / b).astype(a.dtype)


ARITHMETIC: dict[str, Callable[..., Lanes]] = {
    "mov": lambda a: a, "neg": np.negative, "abs": np.abs, "not": np.invert, "sqrt": np.sqrt, "rcp": np.reciprocal,
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": quotient, "rem": np.fmod, "min": np.minimum, "max": np.maximum,
    "and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor, "shl": shifted(np.left_shift), "shr": shifted(np.right_shift),
    "fma": rounded_sum, "mad": rounded_sum, "bfe": field, "prmt": picked_bytes,
}  # fmt: skip
TESTS: dict[str, Callable[..., Lanes]] = {
    "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal, "eq": np.equal, "ne": np.not_equal,
    "nan": lambda a, b: np.isnan(a) | np.isnan(b),
}  # fmt: skip


GARBAGE = np.full(32, 0xA5A5A5A5A5A5A5A5, np.uint64)


def upper_half(a: Lanes, b: Lanes) -> Lanes:
    """Of the bits of a product, twice as many as those of the numbers, 32 at most."""
    wide = np.int64 if a.dtype.kind == "i" else np.uint64
    return (a.astype(wide) * b.astype(wide) >> wide(8 * a.dtype.itemsize)).astype(a.dtype)


class Warp:
    """32 threads in step. Registers hold bits, as unsigned numbers."""

    def __init__(self, parameters: Mapping[str, Any], place: Mapping[str, int], warp: int, memory: Lanes, shared: Lanes) -> None:
        self.parameters, self.memory, self.shared = parameters, memory, shared
        self.registers: dict[str, Lanes] = {name: np.full(32, n, np.uint32) for name, n in place.items()}
        self.registers["%tid.x"] = (LANES + 32 * warp).astype(np.uint32)

    def steps(self, program: Program) -> Iterator[None]:
        """Carries out the program; stops at every barrier."""
        at = 0
        with np.errstate(all="ignore"):
            while True:
                predicate, name, operands = program.code[at]
                at += 1
                on = self.registers[predicate.lstrip("!")] if predicate else np.ones(32, bool)
                on = ~on if predicate.startswith("!") else on
                if name.startswith("bra"):
                    assert on.all() or not on.any(), "threads of a warp part ways"
                    at = program.labels[operands[0]] if on.all() else at
                elif name == "ret":
                    return
                elif name.startswith("bar."):
                    yield
                else:
                    self.do(name, operands, on)

    def do(self, name: str, operands: list[Any], on: Lanes) -> None:
        op, *kinds = name.split(".")
        if own := getattr(self, f"do_{op}", None):
            own(kinds, operands, on)
            return
        if op not in ARITHMETIC:
            raise NotImplementedError(name)
        if op == "mov" and any(isinstance(one, list) for one in operands):
            self.pack(*operands, int(kinds[-1][1:]), on)
            return
        size = 1 if kinds[-1] == "pred" else int(kinds[-1][1:])
        values = [self.get(one, size, kinds[-1][0]) for one in operands[1:]]
        if kinds[0] == "wide":
            a, b = (one.astype(np.int64 if kinds[-1][0] == "s" else np.uint64).view(np.uint64) for one in values[:2])
            self.put(operands[0], a * b + (self.get(operands[3], 2 * size) if op == "mad" else np.uint64(0)), on)
        else:
            self.put(operands[0], upper_half(*values) if kinds[0] == "hi" else ARITHMETIC[op](*values), on)

    def get(self, operand: str, size: int, kind: str = "u") -> Lanes:
        """An operand, of so many bits, as s(igned), f(loat) or bits."""
        if operand.startswith("%"):
            bits = self.registers.get(operand, GARBAGE).astype(BITS[size])  # of a pair of 16 bits one half may never be set, nor used
        elif operand.startswith("0f"):
            bits = np.full(32, int(operand[2:], 16), np.uint32)
        elif operand == "global_smem":
            bits = np.zeros(32, BITS[size])
        else:
            bits = np.full(32, int(operand.removesuffix("U"), 0) & (1 << size) - 1, BITS[size])
        return bits.view(f"{kind}{size // 8}".replace("s", "i")) if kind in "sf" else bits

    def put(self, register: str, value: Lanes, on: Lanes) -> None:
        value = np.ascontiguousarray(value)
        bits = value if value.dtype == np.bool_ else value.view(BITS[8 * value.dtype.itemsize])
        self.registers[register] = bits if on.all() else np.where(on, bits, self.registers.get(register, bits))

    def address(self, operand: str) -> Lanes:
        base, _, offset = operand[1:-1].replace(" ", "").partition("+")
        return self.get(base, 64).astype(np.int64) + int(offset or 0)

    def pack(self, target: Any, source: Any, size: int, on: Lanes) -> None:
        """A register from several smaller ones, or these from it."""
        if isinstance(target, list):
            whole, part = self.get(source, size), size // len(target)
            for k, one in enumerate(target):
                if one != "_":
                    self.put(one, (whole >> BITS[size](k * part)).astype(BITS[part]), on)
        else:
            part = size // len(source)
            parts = [self.get(one, part).astype(BITS[size]) << BITS[size](k * part) for k, one in enumerate(source)]
            self.put(target, np.bitwise_or.reduce(parts), on)

    def do_setp(self, kinds: list[str], operands: list[Any], on: Lanes) -> None:
        a, b = (self.get(one, int(kinds[-1][1:]), kinds[-1][0]) for one in operands[1:])
        plain = kinds[0].removesuffix("u") if kinds[-1][0] == "f" else kinds[0]
        found = TESTS[plain](a, b)
        self.put(operands[0], found | np.isnan(a) | np.isnan(b) if plain != kinds[0] else found, on)

    def do_selp(self, kinds: list[str], operands: list[Any], on: Lanes) -> None:
        a, b = (self.get(one, int(kinds[-1][1:])) for one in operands[1:3])
        self.put(operands[0], np.where(self.registers[operands[3]], a, b), on)

    def do_cvt(self, kinds: list[str], operands: list[Any], on: Lanes) -> None:
        *_, target, source = kinds
        if target.endswith("x2"):  # two floats in a register, the first operand above
            above, below = ((to_brain if target == "bf16x2" else to_half)(self.get(one, 32, "f")).astype(np.uint32) for one in operands[1:])
            found = above << 16 | below
        elif target == "bf16":
            found = to_brain(self.get(operands[1], 32, "f"))
        elif source == "bf16":
            found = brain(self.get(operands[1], 16))
        else:
            found = self.get(operands[1], int(source[1:]), source[0]).astype(f"{target[0]}{int(target[1:]) // 8}".replace("s", "i"))
        self.put(operands[0], found, on)

    def bytes_at(self, kinds: list[str], operand: str, size: int, count: int, on: Lanes) -> tuple[Lanes, Lanes]:
        """The memory of an access, and where each thread has its `count` values of `size` bytes: (32, count, size)."""
        address = self.address(operand)
        own = any(one.startswith("shared") for one in kinds)
        return self.shared if own else self.memory, np.where(on, address, 0)[:, None, None] + size * np.arange(count)[:, None] + np.arange(size)

    def do_ld(self, kinds: list[str], operands: list[Any], on: Lanes) -> None:
        size = int(kinds[-1][1:]) // 8
        if kinds[0] == "param":
            value = self.parameters[operands[1][1:-1]]
            self.put(operands[0], np.full(32, np.float32(value) if isinstance(value, float) else BITS[8 * size](value & (1 << 8 * size) - 1)), on)
            return
        targets = operands[0] if isinstance(operands[0], list) else [operands[0]]
        memory, places = self.bytes_at(kinds, operands[1], size, len(targets), on)
        for k, one in enumerate(targets):
            self.put(one, memory[places[:, k]].view(BITS[8 * size]).reshape(32), on)

    def do_st(self, kinds: list[str], operands: list[Any], on: Lanes) -> None:
        size = int(kinds[-1][1:]) // 8
        sources = operands[1] if isinstance(operands[1], list) else [operands[1]]
        memory, places = self.bytes_at(kinds, operands[0], size, len(sources), on)
        for k, one in enumerate(sources):
            memory[places[on, k]] = self.get(one, 8 * size).view(np.uint8).reshape(32, size)[on]

    def matrices(self, registers: Any, operand: str) -> Iterator[tuple[str, Lanes]]:
        """Each register of a matrix access, and where the 8 rows of its matrix lie, which eight threads tell: (8, 16)."""
        address = self.address(operand)
        for k, one in enumerate(registers if isinstance(registers, list) else [registers]):
            yield one, address[8 * k : 8 * k + 8, None] + np.arange(16)

    def do_ldmatrix(self, kinds: list[str], operands: list[Any], on: Lanes) -> None:
        assert "trans" not in kinds, kinds
        for one, places in self.matrices(operands[0], operands[1]):
            self.put(one, self.shared[places].view(np.uint32).reshape(32), on)

    def do_stmatrix(self, kinds: list[str], operands: list[Any], on: Lanes) -> None:
        assert "trans" not in kinds, kinds
        for one, places in self.matrices(operands[1], operands[0]):
            self.shared[places] = self.get(one, 32).view(np.uint8).reshape(8, 16)

    def do_shfl(self, kinds: list[str], operands: list[Any], on: Lanes) -> None:
        assert kinds[1] in ("bfly", "idx") and operands[3] in ("31", "0x1f"), (kinds, operands)
        other = self.get(operands[2], 32).astype(np.int64) & 31
        self.put(operands[0].split("|")[0], self.get(operands[1], 32)[LANES ^ other if kinds[1] == "bfly" else other], on)
