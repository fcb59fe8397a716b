"""Checkpoint files that are damaged, mistyped, huge or made to do harm: one sentence, exit code 2, nothing run. About 10 s."""

from __future__ import annotations

import collections
import io
import os
import pickle
import random
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import refused, run
from foreign import Foreign

from csn.checkpoints import containers
from csn.checkpoints.pickles import Refused, read_pickle
from csn.checkpoints.reading import read
from csn.spec import UserError


class Command:
    """Pickles as a call of os.system that leaves a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.path}",)


def torch_bytes(held: object, zipped: bool) -> bytes:
    buffer = io.BytesIO()
    torch.save(held, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def test_a_command_in_a_checkpoint_is_named_and_not_run(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    held = {"blobs": {"conv1_w": np.zeros(3, np.float32), "x": Command(mark)}}
    contents = [pickle.dumps(held, protocol) for protocol in range(5)]
    contents += [torch_bytes({"state_dict": {"x": Command(mark)}}, zipped) for zipped in (True, False)]
    for content in contents:
        path = tmp_path / "weights"
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"weights is refused: it holds posix\.system"):
            read(path)
    assert not mark.exists()
    pickle.loads(contents[2])  # the file does what it was made for, where it is let
    assert mark.exists()
    sentence = refused(run("-m", "csn.checkpoints", path))
    assert "posix.system" in sentence


@pytest.mark.parametrize("protocol", range(5))
def test_arrays_and_plain_containers_are_read_as_written(protocol: int) -> None:
    arrays = {
        "matrix": np.arange(6, dtype=np.float32).reshape(2, 3), "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "big": np.arange(5, dtype=">i4"), "scalar": np.array(3.5), "empty": np.zeros((0, 3), np.float16),
    }  # fmt: skip
    held = {"blobs": arrays, "rest": [1, -(2**40), (2.5, None), True, "é", b"\x00\xff"], "ordered": collections.OrderedDict(a=1)}
    back = read_pickle(pickle.dumps(held, protocol))
    assert back["rest"] == held["rest"] and back["ordered"] == {"a": 1}
    assert all(np.array_equal(back["blobs"][name], array) for name, array in arrays.items())
    assert back["blobs"]["big"].dtype == np.int32  # in this machine's byte order


def test_everything_else_in_a_pickle_is_refused_by_name() -> None:
    for thing, name in (
        (np.float32(1), "numpy._core.multiarray.scalar"), (Path("x"), "pathlib"), ({1, 2}, "builtins.set|__builtin__.set"), (Foreign, "foreign.Foreign"),
        (np.array([object()]), "type 'O8'"), (np.array(["a"]), "type 'U1'"), (collections.Counter("a"), "collections.Counter"),
    ):  # fmt: skip
        with pytest.raises(Refused, match=name):
            read_pickle(pickle.dumps({"blobs": {"a": thing}}, 2))
    for content in (b"\x80\x02cos\nsystem\n(U\x01atR.", b"(U\x01aios\nsystem\n.", b"\x80\x02cposix\nsystem\n)\x81."):
        with pytest.raises(Refused, match=r"system"):
            read_pickle(content)
    with pytest.raises(Refused, match="of shape"):  # numbers that are not there
        read_pickle(pickle.dumps(np.arange(6, dtype=np.float32), 2).replace(b"K\x06\x85", b"K\x07\x85"))


def test_tuples_of_tuples_are_neither_hashed_nor_printed() -> None:
    """Doubled 60 times by the memo they would take for ever, nested a hundred thousand deep all of the stack."""
    doubling = b"".join(b"h" + bytes([i]) + b"h" + bytes([i]) + b"\x86q" + bytes([i + 1]) for i in range(60))
    for before, value in ((b"](K\x06q\x00" + doubling + b"e", b"h\x3c"), (b"", b"N" + b"\x85" * 100_000)):
        for end in (b"}(" + value + b"K\x01u.", b"}" + value + b"K\x01s.", b"(" + value + b"K\x01d.",
                    b"ccollections\nOrderedDict\n](" + value + b"K\x01\x86e\x85R."):  # fmt: skip
            with pytest.raises(Refused, match="a dictionary with a tuple for a key"):
                read_pickle(b"\x80\x02" + before + end)
    array = pickle.dumps(np.arange(6, dtype=np.float32), 2)
    assert b"K\x06\x85" in array
    before = b"\x80\x02](K\x06q\x00" + doubling + b"e"
    with pytest.raises(Refused, match="an array without a shape"):
        read_pickle(array.replace(b"\x80\x02", before).replace(b"K\x06\x85", b"h\x3c\x85"))


def test_numbers_of_types_and_names_that_no_network_has(tmp_path: Path) -> None:
    theirs = Foreign("mmaction2", "ir", 50, width=4, classes=5)
    assert read(theirs.save(tmp_path / "a", meta={"CLASSES": torch.zeros(5)}))[0].classes == ()
    path = theirs.save(tmp_path / "b")
    held = torch.load(path, weights_only=True)
    tensors = held.get("state_dict", held)
    name = next(iter(tensors))
    torch.save({**tensors, name: tensors[name].to(torch.float8_e4m3fn)}, tmp_path / "c")
    with pytest.raises(UserError, match=rf"without sensible numbers: {name}"):
        read(tmp_path / "c")
    with pytest.raises(Refused, match="'int' in it is a int, not a tensor"):
        containers.unwrapped({10**5000: 1})


def test_copies_of_one_text_are_refused() -> None:
    text = b"X" + (10_000).to_bytes(4, "little") + b"a" * 10_000
    once = b"\x80\x02]q\x00(c_codecs\nencode\nq\x01" + text + b"q\x02X\x06\x00\x00\x00latin1q\x03\x86R"
    assert read_pickle(once + b"e.") == [b"a" * 10_000]
    with pytest.raises(Refused, match="makes more bytes than it holds"):
        read_pickle(once + b"h\x01h\x02h\x03\x86R" * 1000 + b"e.")


def test_an_archive_whose_parts_overlap_is_refused() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a/data.pkl", bytes(5000))
        for k in range(9):
            again = zipfile.ZipInfo(f"a/data/{k}")
            again.header_offset, again.file_size, again.compress_size, again.CRC = 0, 5000, 5000, 0
            archive.filelist.append(again)
            archive.NameToInfo[again.filename] = again
    with pytest.raises(Refused, match="not one of torch"):
        containers.checked_zip(buffer.getvalue())


def test_damage_anywhere_in_a_pickle_is_a_refusal_or_data() -> None:
    whole = pickle.dumps({"blobs": {"a": np.arange(6, dtype=np.float32), "b": np.ones((2, 2))}}, 2)
    rng, seen = random.Random(0), collections.Counter[bool]()
    for _ in range(2000):
        content = bytearray(whole[: rng.randrange(len(whole))] if rng.random() < 0.3 else whole)
        for _ in range(rng.randint(0, 3)):
            if content:
                content[rng.randrange(len(content))] = rng.randrange(256)
        try:
            read_pickle(bytes(content))
            seen[True] += 1
        except Refused:
            seen[False] += 1
    assert seen[False] > 1000 and seen[True] > 20


def test_truncated_files_of_every_kind(tmp_path: Path) -> None:
    for form in ("vmz", "caffe2", "mmaction2"):
        whole = Foreign(form, "ir", 50, width=4).save(tmp_path / "whole").read_bytes()
        for share in (0.02, 0.5, 0.999):
            (tmp_path / "part").write_bytes(whole[: int(len(whole) * share)])
            with pytest.raises(UserError, match=r"part is refused|part is no"):
                read(tmp_path / "part")


def test_what_is_no_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    for content, sentence in (
        (b"<!DOCTYPE html><html>", "begins with b'<!DOCTYPE ht'"),
        (b"", "begins with b''"),
        (b"PK\x03\x04 and no more", "damaged archive"),
        (b"\x40\x00\x00\x00\x00\x00\x00\x00{" + bytes(70), "no whole safetensors file"),
        (pickle.dumps([1, 2], 2), "holds a list, not named tensors"),
        (pickle.dumps({"blobs": {}}, 2), "holds no tensors"),
        (pickle.dumps({"blobs": {"a": 3}}, 2), "'a' in it is a int, not a tensor"),
        (torch_bytes({"a": torch.eye(3).to_sparse()}, True), "sparse_coo tensor"),
        (torch_bytes({"a": torch.ones(3)}, True), r"its tensors \(a, ...\) are none of VMZ"),
    ):
        path.write_bytes(content)
        with pytest.raises(UserError, match=sentence):
            read(path)
    with pytest.raises(UserError, match="is not a file"):
        read(tmp_path)
    with pytest.raises(UserError, match="No such file"):
        read(tmp_path / "none")


def test_an_archive_of_a_version_that_nobody_writes(tmp_path: Path) -> None:
    """One wrong byte; Python's zipfile calls it not implemented."""
    content, path = bytearray(torch_bytes({"a": torch.ones(3)}, True)), tmp_path / "weights.pth"
    content[content.find(b"PK\x01\x02") + 6] = 200
    with pytest.raises(NotImplementedError):
        zipfile.ZipFile(io.BytesIO(content))
    path.write_bytes(content)
    with pytest.raises(UserError, match="damaged archive"):
        read(path)


def test_more_numbers_than_the_file_has_bytes_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "weights"
    path.write_bytes(torch_bytes({"stem.0.weight": torch.zeros(1).expand(10**6, 10**6)}, True))
    with pytest.raises(UserError, match="claim more numbers than it has bytes for"):
        read(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10**7))
    with pytest.raises(UserError, match="compressed archive"):
        read(path)
    with path.open("wb") as file:  # holes: it takes no room on the disk
        file.truncate(containers.LIMIT + 1)
    with pytest.raises(UserError, match=r"has 2\.0 GiB, more than the 2 that are read"):
        read(path)
