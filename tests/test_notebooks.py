"""The notebooks of the tables run top to bottom, from the committed CSVs and from a smoke run's, and define nothing."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from pathlib import Path

import nbformat
import pytest
from conftest import run
from nbclient import NotebookClient
from nbformat import NotebookNode

from csn.provenance import REPOSITORY

FOLDER = REPOSITORY / "notebooks"
NAMES = ("table1", "table2", "table3", "table4", "table5", "summary")
pytestmark = pytest.mark.filterwarnings("default")  # of Jupyter's own


def executed(names: Sequence[str], before: str) -> dict[str, NotebookNode]:
    """The notebooks, run one after the other in one kernel (starting one costs more than a notebook), emptied before each."""
    books = {name: nbformat.read(FOLDER / f"{name}.ipynb", 4) for name in names}
    whole = nbformat.v4.new_notebook()
    for name, book in books.items():
        whole.cells.append(nbformat.v4.new_code_cell(f"%reset -f\nimport os\n{before}", id=f"before-{name}"))
        whole.cells += book.cells
    NotebookClient(whole, timeout=500, kernel_name="python3", resources={"metadata": {"path": str(FOLDER)}}).execute()
    return books


def outputs(book: NotebookNode) -> list[NotebookNode]:
    return [output for cell in book.cells if cell.cell_type == "code" for output in cell.outputs]


def texts(book: NotebookNode) -> list[str]:
    return [output["data"]["text/markdown"] for output in outputs(book) if "text/markdown" in output.get("data", {})]


@pytest.fixture(scope="module")
def again() -> dict[str, NotebookNode]:
    return executed(NAMES, "[os.environ.pop(key, None) for key in ('CSN_HOME', 'CSN_SCALES')];")


@pytest.mark.parametrize("name", NAMES)
def test_the_committed_output_is_that_of_the_committed_results(name: str, again: dict[str, NotebookNode]) -> None:
    book = again[name]
    committed = nbformat.read(FOLDER / f"{name}.ipynb", 4)
    assert texts(book) == texts(committed) != [], "run make notebooks"
    assert not any("execution" in cell.metadata for cell in committed.cells), "made by make notebooks, the same results give the same file"
    kinds = [[sorted(output.get("data", {})) for output in outputs(one)] for one in (book, committed)]
    assert kinds[0] == kinds[1] and all(kinds[0])
    assert name == "table1" or any("image/png" in kind for kind in kinds[0])


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """A home with a real smoke run of two networks, collected by the tables that have them."""
    home = tmp_path_factory.mktemp("smoke")
    flags = ("--scale", "smoke", "--home", home, "--data", data)
    done = run("experiments/table4_regularization.py", *flags, "--only", "ResNet3D-26", "ip-CSN-26")
    assert done.returncode == 0, done.stdout + done.stderr
    sized = run("experiments/table4_sizes.py", *flags, "--only", "ir-CSN-50-x1", "ResNet3D-50-x2")
    assert sized.returncode == 0, sized.stdout + sized.stderr
    for script in ("table2_interactions", "table3_groups", "table4_schedules"):
        assert run(f"experiments/{script}.py", *flags, "--show").returncode == 0
    return home


@pytest.fixture(scope="module")
def smoke(home: Path) -> dict[str, NotebookNode]:
    return executed(NAMES, f"os.environ |= {{'CSN_HOME': {str(home)!r}, 'CSN_SCALES': 'smoke'}}")


@pytest.mark.parametrize("name", NAMES)
def test_they_run_from_a_smoke_run(name: str, smoke: dict[str, NotebookNode], home: Path) -> None:
    text = "\n".join(texts(smoke[name]))
    assert "scale small" not in text
    assert name in ("table1", "table5") or ("smoke" in text and "undecided" in text)
    assert name != "table1" or ("conv5_x" in text and "| 14.322 | 14.322 |" in text)
    assert name != "table5" or ("| ucf101 |" in text and "fold 1" in text)
    if name == "table4":
        curves = (home / "results" / "smoke" / "table4_regularization_curves.csv").read_text().splitlines()
        assert len(curves) == 1 + 2 * 2  # two networks, two epochs
        assert "| ip-CSN-26 | 0.0" in text


@pytest.mark.parametrize("name", NAMES)
def test_they_define_nothing(name: str) -> None:
    book = nbformat.read(FOLDER / f"{name}.ipynb", 4)
    nbformat.validate(book)
    for cell in book.cells:
        if cell.cell_type == "code":
            kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
            assert not any(isinstance(node, kinds) for node in ast.walk(ast.parse(cell.source)))
            assert not [output for output in cell.outputs if output.output_type in ("error", "stream")]
