"""Pickles of numpy arrays and plain containers, read without running them.

A pickle is a program for a stack machine, and its calls can be anything. This machine has no calls: the names that
numpy's arrays need, and those that Python writes for bytes and ordered mappings, stand for data; every other name is refused
and told.
Protocols 0 to 4; strings of Python 2 are read as Latin-1, so that the bytes of its arrays survive.
"""

from __future__ import annotations

import io
import pickletools
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import prod
from types import NoneType
from typing import Any

import numpy as np
from numpy.typing import NDArray

ARRAY, CLASS, TYPE, ENCODE, BYTES, MAPPING = "array", "class", "type", "encode", "bytes", "mapping"
NAMES = {
    "numpy.core.multiarray _reconstruct": ARRAY, "numpy._core.multiarray _reconstruct": ARRAY,
    "numpy ndarray": CLASS, "numpy dtype": TYPE, "_codecs encode": ENCODE,
    "__builtin__ bytes": BYTES, "collections OrderedDict": MAPPING,
}  # fmt: skip
NUMBERS = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1")
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
LITERALS = (
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING",
    "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
)  # fmt: skip
MARK = object()


class Refused(Exception):
    """What a pickle holds beyond arrays and plain containers; or that it is damaged."""


@dataclass(frozen=True)
class Name:
    """A name the pickle asked for, as data: what it stands for here."""

    kind: str


@dataclass
class Typed:
    """A numpy type in the making: its code, and the byte order once that was told."""

    code: str
    order: str = "<"


@dataclass
class Array:
    """An array in the making: empty until its state was told."""

    content: NDArray[Any] | None = None


@dataclass
class Budget:
    """Bytes that may still be made. A few instructions could otherwise make copies of one text without end."""

    left: int

    def take(self, number: int) -> None:
        self.left -= number
        if self.left < 0:
            raise Refused("it makes more bytes than it holds")


def read_pickle(content: bytes) -> Any:
    """What a pickle holds: dict, list, tuple, str, bytes, numbers, None and numpy arrays of numbers. Raises Refused.

    Bytes after its end are not looked at.
    """
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    budget = Budget(2 * len(content))  # every byte of an array once as text decoded, once as the array
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes in texts that are none
            for opcode, argument, _ in pickletools.genops(io.BytesIO(content)):
                if opcode.name == "STOP":
                    return plain(stack.pop())
                step(opcode.name, argument, stack, memo, budget)
    except Refused:
        raise
    # what a damaged program does to a stack: too short, holding the wrong thing, ending in the middle
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, MemoryError) as error:
        raise Refused(f"it is no whole pickle ({str(error)[:80] or type(error).__name__})") from None
    raise Refused("it is no whole pickle (it does not end)")


def step(name: str, argument: Any, stack: list[Any], memo: dict[int, Any], budget: Budget) -> None:
    """One instruction."""
    if name in LITERALS:
        stack.append(argument)
    elif name in CONSTANTS:
        stack.append(CONSTANTS[name])
    elif name in MAKE:
        stack.append(MAKE[name](stack))
    elif name in ("APPEND", "APPENDS", "SETITEM", "SETITEMS"):
        items = marked(stack) if name.endswith("S") else [stack.pop() for _ in range(1 if name == "APPEND" else 2)][::-1]
        stack[-1].extend(items) if name.startswith("APPEND") else stack[-1].update(pairs(items))
    elif name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
        memo[len(memo) if argument is None else argument] = stack[-1]
    elif name in ("GET", "BINGET", "LONG_BINGET"):
        stack.append(memo[argument])
    elif name in ("GLOBAL", "STACK_GLOBAL"):
        stack.append(named(argument if name == "GLOBAL" else " ".join(last(stack, 2))))
    elif name == "REDUCE":
        arguments, function = stack.pop(), stack.pop()
        stack.append(made(function, arguments, budget))
    elif name == "BUILD":
        state = stack.pop()
        told(stack[-1], state, budget)
    elif name == "INST":
        raise Refused(f"it holds {argument.replace(' ', '.')}")
    elif name not in ("PROTO", "FRAME"):
        raise Refused(f"it holds an object by the instruction {name}")


def marked(stack: list[Any]) -> list[Any]:
    """Take what lies above the last mark, and the mark."""
    at = len(stack) - 1
    while stack[at] is not MARK:
        at -= 1
        if at < 0:
            raise ValueError("no mark")
    items = stack[at + 1 :]
    del stack[at:]
    return items


def pairs(items: list[Any]) -> Iterable[tuple[Any, Any]]:
    """Keys and values. Raises Refused for keys that are no names: tuples of tuples could take for ever to hash, or all of the stack."""
    for key in items[::2]:
        if not isinstance(key, (str, bytes, int, float, NoneType)):
            raise Refused(f"it holds a dictionary with a {type(key).__name__} for a key")
    return zip(items[::2], items[1::2], strict=True)


def last(stack: list[Any], number: int) -> tuple[Any, ...]:
    items = [stack.pop() for _ in range(number)]
    return tuple(reversed(items))


MAKE: dict[str, Callable[[list[Any]], Any]] = {
    "MARK": lambda stack: MARK,
    "EMPTY_TUPLE": lambda stack: (),
    "EMPTY_LIST": lambda stack: [],
    "EMPTY_DICT": lambda stack: {},
    "TUPLE": lambda stack: tuple(marked(stack)),
    "TUPLE1": lambda stack: last(stack, 1),
    "TUPLE2": lambda stack: last(stack, 2),
    "TUPLE3": lambda stack: last(stack, 3),
    "LIST": marked,
    "DICT": lambda stack: dict(pairs(marked(stack))),
}


def named(name: str) -> Name:
    if name not in NAMES:
        raise Refused(f"it holds {name.replace(' ', '.')[:100]}")
    return Name(NAMES[name])


def made(function: Any, arguments: Any, budget: Budget) -> Any:
    """What a "call" of one of the names stands for."""
    match function, arguments:
        case Name(kind="array"), (Name(kind="class"), *_):
            return Array()
        case Name(kind="type"), (str(code), *_):
            if code not in NUMBERS:
                raise Refused(f"it holds an array of type {code[:20]!r}, not of numbers")
            return Typed(code)
        case Name(kind="encode"), (str(text), "latin1" | "latin-1"):
            budget.take(len(text))
            return text.encode("latin-1")
        case Name(kind="bytes"), ():  # how protocol 2 writes b""
            return b""
        case Name(kind="mapping"), ():
            return {}
        case Name(kind="mapping"), (list(items),):
            return dict(pairs([part for key, value in items for part in (key, value)]))
    raise Refused("it holds a call that makes no array")


def told(thing: Any, state: Any, budget: Budget) -> None:
    """Give a type or an array in the making its state."""
    match thing, state:
        case Typed(), (3 | 4, str(order), None, None, None, *_) if order in ("<", ">", "|", "="):
            thing.order = order
        case Array(), (1, tuple(shape), Typed(code=code, order=order), fortran, (bytes() | str()) as data):
            budget.take(len(data))
            raw = data.encode("latin-1") if isinstance(data, str) else data
            dtype = np.dtype(order + code)
            if len(shape) > 32 or not all(type(n) is int and 0 <= n < 2**62 for n in shape):  # nothing else is safe to be printed
                raise Refused("it holds an array without a shape")
            if prod(shape) * dtype.itemsize != len(raw):
                raise Refused(f"it holds an array of shape {str(shape)[:60]} in {len(raw)} bytes")
            array = np.frombuffer(raw, dtype).reshape(shape, order="F" if fortran else "C")
            thing.content = np.array(array, dtype.newbyteorder("="), order="C")
        case _:
            raise Refused("it holds an object with a state of its own")


def plain(thing: Any) -> Any:
    """thing with finished arrays in place of those in the making, two containers deep: as deep as weights lie."""
    return inner(thing, 2)


def inner(thing: Any, depth: int) -> Any:
    if isinstance(thing, Array):
        return thing.content
    if isinstance(thing, dict) and depth:
        return {key: inner(value, depth - 1) for key, value in thing.items()}
    return thing
