"""From the bytes of a file to named tensors: safetensors, torch (zip and the older stream), pickled numpy arrays.

The kind is seen in the first bytes, not in the name. Nothing in a file is run: torch reads weights only, pickles go through
csn.checkpoints.pickles. A file is at most LIMIT bytes, and tensors never claim more numbers than it has bytes for.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import stat
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from csn.checkpoints.pickles import Refused, read_pickle
from csn.spec import UserError

LIMIT = 2 * 2**30  # bytes; the largest published network of the family, with its optimizer, has half of that
OLD_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the magic number that opens torch's older stream
WRAPPERS = ("state_dict", "model_state", "blobs")  # MMAction2; PyTorchVideo; Caffe2


@dataclass(frozen=True)
class Content:
    """tensors: by name, in the file's order. told: what a safetensors header says, texts by name. beside: what stands beside
    the tensors in their wrapper, by name. sha256: of the file."""

    tensors: dict[str, Tensor]
    told: dict[str, str]
    beside: dict[str, Any]
    sha256: str


def read(path: Path) -> Content:
    """The tensors of a file. Raises UserError, one sentence, for what is no whole file of weights or holds anything else."""
    content = read_bytes(path)
    told: dict[str, str] = {}
    try:
        if content.startswith(b"PK\x03\x04"):
            held = by_torch(checked_zip(content))
        elif content.startswith(OLD_TORCH):
            held = by_torch(content)
        elif content[8:9] == b"{":
            held, told = by_safetensors(content)
        elif content[:1] in (b"\x80", b"(", b"}"):
            held = read_pickle(content)
        else:
            raise Refused(f"it begins with {content[:12]!r}, which no checkpoint does (perhaps another page was downloaded)")
        tensors, beside = unwrapped(held)
        if sum(t.numel() * t.element_size() for t in tensors.values()) > len(content):
            raise Refused("its tensors claim more numbers than it has bytes for")
    except Refused as error:
        raise UserError(f"The checkpoint {path} is refused: {error}.") from None
    return Content(tensors, told, beside, hashlib.sha256(content).hexdigest())


def read_bytes(path: Path) -> bytes:
    """The content of a plain file of at most LIMIT bytes. Raises UserError."""
    try:
        facts = path.stat()
        if not stat.S_ISREG(facts.st_mode):
            raise UserError(f"The checkpoint {path} is not a file.")
        if facts.st_size > LIMIT:
            raise UserError(f"The checkpoint {path} has {facts.st_size / 2**30:.1f} GiB, more than the {LIMIT / 2**30:g} that are read.")
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"The checkpoint {path} cannot be read ({error.strerror}).") from None


def checked_zip(content: bytes) -> bytes:
    """content, a zip archive as torch writes them: nothing in it is compressed, so it cannot grow beyond the file."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
            if any(member.compress_type != zipfile.ZIP_STORED for member in members) or sum(member.file_size for member in members) > len(content):
                raise Refused("it is a compressed archive, not one of torch")
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        raise Refused("it is a damaged archive (perhaps not downloaded whole)") from None
    return content


def by_torch(content: bytes) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of kinds of tensors that are refused later
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # torch's own reader of damaged files raises whatever its steps raise
        name = re.search(r"GLOBAL (\S+)", str(error))
        if name:
            raise Refused(f"it holds {name[1]}, and only tensors and plain containers are read") from None
        why = str(error).strip().splitlines()
        raise Refused(f"torch cannot read it ({why[-1][:100] if why else type(error).__name__}; perhaps not downloaded whole)") from None


def by_safetensors(content: bytes) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        tensors = safetensors.torch.load(content)
        size = int.from_bytes(content[:8], "little")
        told = json.loads(content[8 : 8 + size]).get("__metadata__") or {}
    except (safetensors.SafetensorError, ValueError, KeyError, RecursionError) as error:
        raise Refused(f"it is no whole safetensors file ({str(error)[:100]})") from None
    return tensors, told


def unwrapped(held: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The named tensors in what a file holds, and what stands beside them. Raises Refused."""
    if not isinstance(held, Mapping):
        raise Refused(f"it holds a {type(held).__name__}, not named tensors")
    wrapper = next((name for name in WRAPPERS if isinstance(held.get(name), Mapping)), None)
    named = held if wrapper is None else held[wrapper]
    tensors = {}
    for name, value in named.items():
        if isinstance(value, np.ndarray):
            value = torch.from_numpy(value)
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise Refused(f"{name[:60] if isinstance(name, str) else type(name).__name__!r} in it is a {type(value).__name__}, not a tensor")
        if value.layout != torch.strided or value.is_quantized or value.is_complex():
            raise Refused(f"{name[:60]!r} in it is a {value.layout} tensor of {value.dtype}, which no network here has")
        tensors[name] = value.detach()
    if not tensors:
        raise Refused("it holds no tensors")
    return tensors, {name: value for name, value in held.items() if name != wrapper} if wrapper else {}
