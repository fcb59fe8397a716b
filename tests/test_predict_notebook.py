"""The notebook that classifies a clip runs on what this test makes. About 10 s of one core."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from made_videos import write
from nbclient import NotebookClient
from small_checkpoint import NAMES, small_checkpoint

from csn.provenance import REPOSITORY

NOTEBOOK = REPOSITORY / "notebooks" / "predict.ipynb"


@pytest.mark.filterwarnings("default")  # of Jupyter's own
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CSN_CHECKPOINT", str(small_checkpoint(tmp_path / "net.safetensors")))
    monkeypatch.setenv("CSN_VIDEO", str(write(tmp_path / "a.mp4")))
    book = nbformat.read(NOTEBOOK, 4)
    NotebookClient(book, timeout=300, resources={"metadata": {"path": str(NOTEBOOK.parent)}}).execute()
    outputs = [output for cell in book.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    text = "".join(output.text for output in outputs if output.output_type == "stream")
    assert "ip-CSN-26" in text and all(f" %  {name}" in text for name in NAMES)
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 3


def test_the_committed_notebook_shows_its_output() -> None:
    book = nbformat.read(NOTEBOOK, 4)
    cells = [cell for cell in book.cells if cell.cell_type == "code"]
    assert all(cell.outputs for cell in cells[1:]) and "def " not in "".join(cell.source for cell in cells)
