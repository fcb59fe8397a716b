"""One Run -> one record (csn.records), resumable, at most once.

`python -m csn.execute RUN.json --home DIR` runs one; it is what every launcher starts, here or on a cluster.
"""

from __future__ import annotations

import io
import json
import os
import resource
import signal
import socket
import sys
import threading
import time
import traceback
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from math import isfinite
from pathlib import Path
from typing import Any

from csn.files import Held, held, write_atomic, write_json
from csn.flags import Parser, folder
from csn.provenance import REPOSITORY, code_version, device_of, environment, warn_about
from csn.records import first_fault, folder_of, read_progress, read_record, stands
from csn.signals import handled, hangup
from csn.spec import Run, UserError, require

ALONE = threading.Lock()  # a run draws its weights from torch's one generator of a process
MEET_EVERY = 8  # videos of a process after which those that share a test ask each other whether to stop
STOPPED = 75  # exit code of a run that was asked to stop and has saved its state
HELD = 73  # exit code where another process works on the run


def execute(run: Run, home: Path, data: Path, device_name: str = "cpu", threads: int = 1, workers: int = 0, checkpoint_every: float = 60.0) -> dict[str, Any]:
    """The record of run: the one on disk, or a new one after training (resumed where it stopped) and testing.

    Where torch.distributed is up, its processes share the run: all call this, the first one writes, all get the record. Threads take turns.
    Raises Held when another process works on the run, csn.train.Stopped after SIGTERM, SIGINT, SIGUSR2 or SIGHUP (state saved),
    UserError for what a person can mend. A divergence or a crash is recorded with its reason; a crash is tried again.
    """
    import torch

    from csn import checkpoints
    from csn.train import Diverged, Place, Stopped

    rank, size = world()
    folder = folder_of(run, home)
    with ExitStack() as stack:
        record, trouble = None, None
        if rank == 0:
            try:
                record = read_record(run, home)
                if not stands(record):  # what is done can be read where nothing can be written
                    stack.enter_context(held(folder))
                    (folder / "fault").unlink(missing_ok=True)
                    record = read_record(run, home)  # another process may have made it meanwhile
            except UserError as error:
                trouble = error
        record, trouble = from_first((record, trouble), size)
        if trouble is not None:
            raise trouble
        if stands(record):
            return record
        stack.enter_context(ALONE)
        warn_about(torch)
        stack.callback(torch.set_num_threads, torch.get_num_threads())
        torch.set_num_threads(threads)
        device = device_of(device_name)
        if device.type == "cuda" and device.index is not None:
            torch.cuda.set_device(device)  # what is asked of CUDA without naming a device is asked of this one
        asked: list[int] = []
        stack.enter_context(handled(lambda number, _: asked.append(number), signal.SIGTERM, signal.SIGINT, signal.SIGUSR2, *hangup()))
        started = datetime.now(UTC).isoformat(timespec="seconds")
        began = time.monotonic()

        def report(**facts: Any) -> None:
            if rank == 0:
                write_json(folder / "progress.json", {"run": run.name, "pid": os.getpid(), "host": socket.gethostname(),
                                                      "time": time.time(), "elapsed": time.monotonic() - began, **facts}, durable=False)  # fmt: skip

        base = {"run": run.name, "spec": run.to_dict(), "started": started, "processes": size, **code_version(), **environment(device, threads)}
        place = Place(device, rank, size, workers, checkpoint_every, stop=lambda: bool(asked), report=report)
        try:
            if rank == 0:
                write_json(folder / "run.json", run.to_dict())
            record = {**base, **work(run, folder, data, place)}
        except (Stopped, UserError) as error:
            stopped = isinstance(error, Stopped) or bool(asked)  # the second: by the same signal, as a process that makes data may be
            if size > 1 and not stopped:
                first_fault(folder, str(error))
            if rank == 0:
                with suppress(UserError):  # the disk may be what ended it
                    write_json(folder / "progress.json", {**read_progress(folder), "ended": True}, durable=False)
            if stopped and not isinstance(error, Stopped):
                raise Stopped(f"stopped ({str(error).rstrip('.')})") from None
            raise
        except Diverged as error:
            record = {**base, "error": f"{error}; it would come again (to try all the same, delete the run's record.json)"}
        except Exception as error:
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            reason = first_fault(folder, reason) if size > 1 else reason
            record = {**base, "error": reason, "traceback": traceback.format_exc(), "retry": True}
        if rank == 0:
            write_json(folder / "record.json", record)
            if "error" not in record:
                checkpoints.discard(folder)  # only now: a kill before this line loses nothing
            (folder / "progress.json").unlink(missing_ok=True)
        return record


def world() -> tuple[int, int]:
    """Rank of this process and number of those that share the run: (0, 1) where torch.distributed is not up."""
    import torch.distributed as dist

    return (dist.get_rank(), dist.get_world_size()) if dist.is_available() and dist.is_initialized() else (0, 1)


def from_first(value: Any, size: int) -> Any:
    """The first process's value, on all of them."""
    if size == 1:
        return value
    import torch.distributed as dist

    box = [value]
    dist.broadcast_object_list(box)
    return box[0]


def work(run: Run, folder: Path, data: Path, place: Any) -> dict[str, Any]:
    """Train, test on both splits, write weights and scores; the measured part of the record.

    Raises what train raises; Stopped in a test too, whose next sitting begins with the test.
    """
    import numpy as np

    from csn.checkpoints import facts, network
    from csn.cost import count
    from csn.data import Split
    from csn.data.loader import load, reader_of
    from csn.evaluate import Scores, evaluate
    from csn.exchange import any_asked
    from csn.train import Stopped, train

    recipe = run.recipe
    place.report(phase="data")
    test_split = load(recipe, data, "test")
    # who only tests a network need not have the videos to train on; the classes are the same
    train_split = load(recipe, data, "train") if recipe.clips_per_epoch else test_split
    splits = {"train": train_split, "test": test_split} if recipe.clips_per_epoch else {"test": test_split}
    if place.rank == 0:
        print(*(line for name, split in splits.items() for line in split.told(name)), sep="\n", flush=True)
    reader = reader_of(recipe, data, splits)
    trained = train(run, train_split, reader, folder, place, data / "checkpoints" / recipe.pretrained if recipe.pretrained else None)
    began, last = time.monotonic(), [0.0]

    def score(split: Split, phase: str) -> Scores:
        shared = len(split.samples) // place.size  # videos that every process has: these are where all meet

        def tick(done: int, total: int) -> None:
            if (place.size == 1 or (done % MEET_EVERY == 0 and done <= shared)) and any_asked(place):
                raise Stopped(f"stopped at video {done} of {total} of the {phase}; training is over")
            if time.monotonic() - last[0] > 1:
                last[0] = time.monotonic()
                place.report(phase=phase, step=done, steps=total)

        return evaluate(trained.net, split, recipe, reader, place.device, place.workers, tick=tick, rank=place.rank, size=place.size)

    test = score(test_split, "test")
    measures, damaged = test.measures(), trained.damaged
    if trained.history:  # a network that only came to be tested has nothing to tell of these videos
        fit = score(train_split, "train videos")
        measures["train_top1"], damaged = fit.measures()["video_top1"], sorted({*trained.damaged, *fit.damaged})
    cost = count(trained.net, (3, recipe.frames, recipe.crop, recipe.crop))
    if place.rank == 0:
        scores = io.BytesIO()
        np.savez_compressed(scores, probs=test.probs.astype(np.float16), labels=test.labels, clip=test.clip, videos=np.array(test.videos))
        write_atomic(folder / "scores.npz", scores.getvalue())
        told = facts.of_run(run, train_split.classes, trained.net)
        network.write(folder / "weights.safetensors", told, trained.net.state_dict(), run=run.to_dict())
    return {
        "params": cost.params, "flops": cost.flops, "interactions": cost.interactions, "uncounted": list(cost.uncounted),
        **{name: one.mean for name, one in measures.items() if isfinite(one.mean)},
        **{f"{name}_interval": {"low": one.low, "high": one.high, "n": one.n} for name, one in measures.items() if isfinite(one.low)},
        "n_videos": len(test.videos), "n_train_videos": len(train_split.samples) if trained.history else None, "history": trained.history,
        "data": {name: split.fingerprint for name, split in splits.items()},
        "damaged_videos": {"train": damaged, "test": list(test.damaged)},
        "cut_videos": {name: list(split.cut) for name, split in splits.items()},
        "missing_videos": {name: len(split.missing) for name, split in splits.items()},
        "empty_classes": {name: list(split.empty) for name, split in splits.items()},
        "damaged_checkpoints": trained.broken, "peak_memory_mb": peak_memory(place.device) / 2**20, "compile_seconds": trained.compiling,
        "train_memory_mb_per_clip": trained.memory and trained.memory / 2**20,
        "seconds": trained.seconds + time.monotonic() - began, "train_seconds": trained.seconds,
        **({"pretrained": {"file": recipe.pretrained, "sha256": trained.pretrained}} if recipe.pretrained else {}),
    }  # fmt: skip


def peak_memory(device: Any) -> int:
    """Bytes: the most that this process held, in the GPU's memory by its tensors, or in all on a CPU."""
    import torch

    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def read_run(path: Path) -> Run:
    """The Run that path describes. Raises UserError."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"The run description {path} cannot be read ({error}); make it again.") from None
    return Run.from_dict(content)


def main(arguments: list[str] | None = None) -> int:
    parser = Parser(prog="python -m csn.execute", description="Run one run.json to its record, resuming where it stopped.")
    parser.add_argument("run", type=Path, help="run.json: the content of a Run")
    parser.add_argument("--home", type=folder, default=REPOSITORY, help="folder of runs/ and results/")
    parser.add_argument("--data", type=folder, help="folder of the data sets (HOME/data)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; part of what makes results equal to the last bit")
    parser.add_argument("--workers", type=int, default=0, help="loader processes")
    parser.add_argument("--checkpoint-every", type=float, default=60.0, help="seconds between checkpoints")
    parser.add_argument("--parent", type=int, help="a process that this one does not outlive: its end stops the run, state saved (Linux)")
    from csn.data.workers import end_with
    from csn.train import Stopped

    try:
        args = parser.parse_args(arguments)
        if args.parent:
            end_with(args.parent)
        run = read_run(args.run)
        require(args.threads >= 1, "--threads", args.threads, "must be at least 1")
        require(args.workers >= 0, "--workers", args.workers, "must be at least 0")
        require(args.checkpoint_every >= 0, "--checkpoint-every", args.checkpoint_every, "must be at least 0 seconds")
        record = execute(run, args.home, args.data or args.home / "data", args.device, args.threads, args.workers, args.checkpoint_every)
    except Stopped as stop:
        print(f"{stop}; the state is saved, the same command goes on from there.", file=sys.stderr)
        return STOPPED
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return HELD if isinstance(error, Held) else 2
    if "error" in record:
        print(f"failed: {record['error']}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
