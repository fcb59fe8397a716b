"""A network for other programs: torch.export (.pt2) and ONNX (.onnx), any batch size, checked against the network itself.

    python -m csn.export FILE --to NET.onnx [--fold]

Written are torch's own operators only, in place of our kernels; fold: batch norm inside the convolutions (csn.inference).
What goes with the network (statistics, classes, clip) travels in the file, as the header of our checkpoints.
"""

from __future__ import annotations

import copy
import io
import logging
import sys
import warnings
from dataclasses import dataclass
from math import isnan
from pathlib import Path

import torch
from torch import Tensor, nn

from csn.checkpoints.facts import metadata
from csn.checkpoints.network import facts_of, load
from csn.dense import DenseConv3d
from csn.depthwise import DepthwiseConv3d
from csn.files import write_atomic
from csn.flags import Parser
from csn.inference import folded
from csn.pointwise import PointwiseConv3d
from csn.resnet3d import ResNet3D
from csn.spec import UserError
from csn.stem import MaxPool1, StemConv3d

TOLERANCE = 1e-3  # of the largest logit; more is no rounding, and nothing is written


@dataclass(frozen=True)
class Exported:
    """A file written. error: largest difference of its logits from the network's, over the largest logit, on random clips.
    folding: the same of folding batch norm by itself, 0 where it was not folded."""

    path: Path
    error: float
    folding: float


def export(net: ResNet3D, path: str | Path, fold: bool = False, size: tuple[int, int, int] | None = None) -> Exported:
    """Write net, as csn.load gives it, to path: .pt2 or .onnx by its ending; input "clips" (B, 3, T, H, W), output "logits".

    size: (T, H, W), by default the network's own clip; B is free. Raises UserError where the ending is another, a library is
    missing, or what was written does not compute what net does.
    """
    path = Path(path)
    if path.suffix not in (".onnx", ".pt2"):
        raise UserError(f"`--to` (={path}) must end in .onnx or .pt2.")
    facts = facts_of(net)
    frames, height, width = size or (facts.input.frames, facts.input.crop, facts.input.crop)
    if min(frames, height, width) < 1:
        raise UserError(f"`--size` (={frames} {height} {width}) must be frames, height and width of at least 1.")
    clips = torch.randn(2, 3, frames, height, width, generator=torch.Generator().manual_seed(0))
    written = (folded(net) if fold else portable(net)).cpu().eval().to(memory_format=torch.contiguous_format)
    program = torch.export.export(written, (clips,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},), strict=False)
    told = metadata(facts, frames=frames, height=height, width=width)
    content = onnx_bytes(program, told) if path.suffix == ".onnx" else pt2_bytes(program, told)
    three = torch.cat([clips, clips[:1].flip(2)])
    errors, own = [], copy.deepcopy(net).cpu().eval()  # wherever the network is, and whatever it is doing
    with torch.no_grad():
        for batch in (clips[:1], three):  # one, and a number that was not exported
            expected = own(batch)
            errors.append(relative(outputs(content, path.suffix, batch), expected))
        folding = relative(written(three), expected) if fold else 0.0
    error = max(errors, key=lambda one: (isnan(one), one))
    if not error < TOLERANCE:  # a network whose logits are not finite included
        raise UserError(f"What was exported differs from the network by {error:.1e} of its largest logit; {path} was not written.")
    write_atomic(path, content)
    return Exported(path, error, folding)


def portable(net: ResNet3D) -> nn.Module:
    """A copy of net in torch's own modules: nn.Conv3d and nn.MaxPool3d in place of ours, the same weights."""
    copied = copy.deepcopy(net).cpu().eval()
    for module in list(copied.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, MaxPool1):
                setattr(module, name, nn.MaxPool3d(child.kernel_size, child.stride, child.padding))
            elif isinstance(child, (DepthwiseConv3d, PointwiseConv3d, StemConv3d, DenseConv3d)):
                c_out, c_in, *kernel = child.weight.shape
                groups = c_out if isinstance(child, DepthwiseConv3d) else getattr(child, "groups", 1)
                padding = tuple(k // 2 for k in kernel)
                plain = nn.Conv3d(c_in * groups, c_out, tuple(kernel), child.stride, padding, groups=groups, bias=False)  # type: ignore[arg-type]
                plain.weight = child.weight
                setattr(module, name, plain)
    return copied


def relative(logits: Tensor, expected: Tensor) -> float:
    """The largest difference over the largest expected value."""
    return float((logits - expected).abs().max() / expected.abs().max())


def pt2_bytes(program: torch.export.ExportedProgram, told: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files=told)
    return buffer.getvalue()


def onnx_bytes(program: torch.export.ExportedProgram, told: dict[str, str]) -> bytes:
    """The program as one ONNX file, its weights inside. Raises UserError where the libraries for it are missing."""
    try:
        import onnx
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(f"ONNX needs {error.name}; install the packages of requirements.txt.") from None
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own use of torch
        converted = torch.onnx.export(program, dynamo=True, input_names=["clips"], output_names=["logits"], verbose=False)
    assert converted is not None
    model = converted.model_proto
    onnx.helper.set_model_props(model, told)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def outputs(content: bytes, suffix: str, clips: Tensor) -> Tensor:
    """Logits of an exported file, computed by the program that would use it: onnxruntime or torch."""
    if suffix == ".pt2":
        return torch.export.load(io.BytesIO(content)).module()(clips)
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"clips": clips.numpy()})
    return torch.from_numpy(logits)


def main(arguments: list[str] | None = None) -> int:
    """Run the command: 0, or 2 for what a person can mend."""
    parser = Parser(prog="python -m csn.export", description="Write a checkpoint's network for other programs, checked.")
    parser.add_argument("file", type=Path, help="a checkpoint of any format")
    parser.add_argument("--to", type=Path, required=True, metavar="NET.onnx|NET.pt2")
    parser.add_argument("--fold", action="store_true", help="fold batch norm into the convolutions")
    parser.add_argument("--size", type=int, nargs=3, metavar=("T", "H", "W"), help="clip (default: the network's own)")
    try:
        args = parser.parse_args(arguments)
        net = load(args.file)
        for note in facts_of(net).notes:
            print(f"note: {note}", file=sys.stderr)
        done = export(net, args.to, args.fold, tuple(args.size) if args.size else None)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    folding = f" (folding by itself: {done.folding:.1e})" if args.fold else ""
    print(f"Written: {done.path}; logits differ from the network's by at most {done.error:.1e} of the largest{folding}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
