"""Networks as the published files hold them: names and shapes of each format, files of each kind, and an evaluation that
reads nothing but those names, written apart from the package's own."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

STAGES = {18: (2, 2, 2, 2), 26: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
PARTS = {"ip": ("in", "mix", "deep", "out"), "ir": ("in", "deep", "out"), "r3d": ("in", "deep", "out"), "simple": ("one", "two")}


def named(form: str, kind: str, part: str, s: int = 0, b: int = 0, i: int = 0) -> tuple[str, str]:
    """Names of a convolution and its batch norm. s: stage 1..4. b: block of the stage. i: block of the network."""
    if form == "vmz":
        inner = {
            "in": "conv1.0 conv1.1", "mix": "conv2.0.0 conv2.0.1", "deep": "conv2.0.2 conv2.1" if kind == "ip" else "conv2.0 conv2.1",
            "out": "conv3.0 conv3.1", "short": "downsample.0 downsample.1", "one": "conv1.0 conv1.1", "two": "conv2.0 conv2.1",
        }  # fmt: skip
        pair = "stem.0 stem.1" if part == "stem" else " ".join(f"layer{s}.{b}.{name}" for name in inner[part].split())
    elif form == "caffe2":
        number = {"ip": {"in": "1", "mix": "2_middle", "deep": "2", "out": "3"}, "ir": {"in": "1", "deep": "3", "out": "4"},
                  "r3d": {"in": "1", "deep": "2", "out": "3"}, "simple": {"one": "1", "two": "2"}}[kind]  # fmt: skip
        if part in ("stem", "short"):
            pair = "conv1 conv1_spatbn_relu" if part == "stem" else f"shortcut_projection_{i} shortcut_projection_{i}_spatbn"
        else:
            pair = f"comp_{i}_conv_{number[part]} comp_{i}_spatbn_{number[part]}"
    elif form in ("mmaction2", "backbone"):
        inner = {"in": "conv1", "mix": "conv2.0", "deep": "conv2.1" if kind == "ip" else "conv2.0", "out": "conv3", "short": "downsample"}
        at = "conv1" if part == "stem" else f"layer{s}.{b}.{inner[part]}"
        pair = " ".join(("backbone." if form == "mmaction2" else "") + f"{at}.{what}" for what in ("conv", "bn"))
    else:
        inner = {"in": "branch2.conv_a branch2.norm_a", "deep": "branch2.conv_b branch2.norm_b", "out": "branch2.conv_c branch2.norm_c",
                 "short": "branch1_conv branch1_norm"}  # fmt: skip
        pair = "blocks.0.conv blocks.0.norm" if part == "stem" else " ".join(f"blocks.{s}.res_blocks.{b}.{name}" for name in inner[part].split())
    conv, norm = pair.split()
    return conv, norm


HEADS = {"vmz": "fc", "caffe2": "last_out_L{}", "mmaction2": "cls_head.fc_cls", "pytorchvideo": "blocks.5.proj", "backbone": ""}


class Foreign:
    """A random network of a format. state: its tensors by the format's names. Calling it gives logits, by that state alone."""

    def __init__(self, form: str, kind: str, depth: int, classes: int = 5, width: int = 8, seed: int = 0) -> None:
        self.form, self.kind, self.depth, self.classes, self.width = form, kind, depth, classes, width
        self.draw = torch.Generator().manual_seed(seed)
        self.state: dict[str, Tensor] = {}
        self.unit("stem", width, 3, (3, 7, 7))
        expansion = 4 if depth >= 50 else 1
        before, i = width, 0
        for s, blocks in enumerate(STAGES[depth], 1):
            mid = width * 2 ** (s - 1)
            after = mid * expansion
            for b in range(blocks):
                at = {"s": s, "b": b, "i": i}
                for part in PARTS[kind]:
                    c_in = before if part in ("in", "one") else after if part == "two" else mid
                    c_out = after if part in ("out", "one", "two") else mid
                    cube = (3, 3, 3) if part in ("deep", "one", "two") else (1, 1, 1)
                    self.unit(part, c_out, 1 if part == "deep" and kind != "r3d" else c_in, cube, **at)
                if before != after:
                    self.unit("short", after, before, (1, 1, 1), **at)
                before, i = after, i + 1
        if HEADS[form]:
            head, (weight, bias) = HEADS[form].format(classes), ("_w", "_b") if form == "caffe2" else (".weight", ".bias")
            self.state[head + weight] = self.normal(classes, before) / before**0.5
            self.state[head + bias] = self.normal(classes)

    def normal(self, *size: int) -> Tensor:
        return torch.randn(*size, generator=self.draw)

    def unit(self, part: str, c_out: int, c_in: int, cube: tuple[int, int, int], **at: int) -> None:
        """A convolution and a batch norm whose statistics are far from 0 and 1 and often near the epsilon."""
        conv, norm = named(self.form, self.kind, part, **at)
        uniform = torch.rand(4, c_out, generator=self.draw)
        var = 10 ** (3 * uniform[3] - 3)
        gain = 0.3 if part in ("out", "two") else 1.0
        values = (gain * (uniform[0] + 0.5), uniform[1] - 0.5, (uniform[2] - 0.5) * var.sqrt(), var)
        names = ("_s", "_b", "_rm", "_riv") if self.form == "caffe2" else (".weight", ".bias", ".running_mean", ".running_var")
        weight = self.normal(c_out, c_in, *cube) * var.sqrt().view(-1, 1, 1, 1, 1)
        self.state[conv + ("_w" if self.form == "caffe2" else ".weight")] = weight / weight[0].numel() ** 0.5
        self.state.update({norm + name: value for name, value in zip(names, values, strict=True)})
        if self.form != "caffe2":
            self.state[norm + ".num_batches_tracked"] = torch.tensor(7)

    def __call__(self, x: Tensor, eps: float, pool: bool = True) -> Tensor:
        """Logits (B, K) of normalised clips (B, 3, T, H, W), T at least 8."""
        x = F.relu(self.conv(x, "stem", eps, (1, 2, 2)))
        if pool:
            x = F.max_pool3d(x, (1, 3, 3), (1, 2, 2), (0, 1, 1))
        i = 0
        for s, blocks in enumerate(STAGES[self.depth], 1):
            for b in range(blocks):
                at, stride = {"s": s, "b": b, "i": i}, (2, 2, 2) if s > 1 and b == 0 else (1, 1, 1)
                y = x
                for part in PARTS[self.kind]:
                    y = self.conv(y, part, eps, stride if part in ("deep", "one") else (1, 1, 1), **at)
                    if part in ("in", "deep", "one"):  # none behind the mixing convolution, none before the sum
                        y = F.relu(y)
                x = F.relu(y + (x if x.shape == y.shape and b else self.short(x, eps, stride, **at)))
                i += 1
        head, (weight, bias) = HEADS[self.form].format(self.classes), ("_w", "_b") if self.form == "caffe2" else (".weight", ".bias")
        return F.linear(x.mean((2, 3, 4)), self.state[head + weight], self.state[head + bias])

    def short(self, x: Tensor, eps: float, stride: tuple[int, int, int], **at: int) -> Tensor:
        conv, _ = named(self.form, self.kind, "short", **at)
        there = conv + ("_w" if self.form == "caffe2" else ".weight") in self.state
        return self.conv(x, "short", eps, stride, **at) if there else x

    def conv(self, x: Tensor, part: str, eps: float, stride: tuple[int, int, int], **at: int) -> Tensor:
        conv, norm = named(self.form, self.kind, part, **at)
        state = self.state
        if self.form == "caffe2":
            weight, gamma, beta, mean, var = state[conv + "_w"], *(state[norm + name] for name in ("_s", "_b", "_rm", "_riv"))
        else:
            weight, gamma, beta = state[conv + ".weight"], state[norm + ".weight"], state[norm + ".bias"]
            mean, var = state[norm + ".running_mean"], state[norm + ".running_var"]
        padding = [size // 2 for size in weight.shape[2:]]
        x = F.conv3d(x, weight, None, stride, padding, groups=x.shape[1] // weight.shape[1])
        wide = (1, -1, 1, 1, 1)
        return (x - mean.view(wide)) / (var.view(wide) + eps).sqrt() * gamma.view(wide) + beta.view(wide)

    def save(self, path: Path, **beside: object) -> Path:
        """Write the file as its makers do. beside: what stands next to the tensors in their wrapper."""
        if self.form == "caffe2":
            path.write_bytes(python2_pickle({name: tensor.numpy() for name, tensor in self.state.items()}))
        elif self.form == "vmz":  # written in 2020, by the older stream
            torch.save(self.state, path, _use_new_zipfile_serialization=False)
        else:
            torch.save({"model_state" if self.form == "pytorchvideo" else "state_dict": self.state, **beside}, path)
        return path


def python2_pickle(blobs: dict[str, np.ndarray]) -> bytes:
    """{"blobs": blobs} as Python 2 pickles it at protocol 2: texts and the bytes of arrays as strings."""

    def text(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value if len(value) < 256 else b"T" + struct.pack("<i", len(value)) + value

    out = b"\x80\x02}" + text(b"blobs") + b"}("
    for name, array in blobs.items():
        size = b"(" + b"".join(b"J" + struct.pack("<i", n) for n in array.shape) + b"t"
        number = b"cnumpy\ndtype\n" + text(b"f4") + b"K\x00K\x01\x87R(K\x03" + text(b"<") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        out += text(name.encode()) + b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85" + text(b"b") + b"tR(K\x01"
        out += size + number + b"\x89" + text(array.astype("<f4").tobytes()) + b"tb"
    return out + b"us."
