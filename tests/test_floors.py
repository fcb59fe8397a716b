"""The house: imports go downward only, planning imports no torch, files stay readable."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest
from conftest import run

from csn.provenance import REPOSITORY

FLOORS = {
    "rules": 0, "sources": 0, "spec": 0, "recipes": 0, "files": 0, "flags": 0, "signals": 0, "records": 1, "provenance": 1,
    "blocks": 1, "depthwise": 1, "depthwise_triton": 1, "depthwise_tiles": 1, "depthwise_tune": 1,
    "dense": 1, "norm": 1, "norm_triton": 1, "stem": 1, "stem_triton": 1, "data": 1, "metrics": 1,
    "resnet3d": 2, "inference": 2, "cost": 2, "checkpoints": 2, "train": 3, "exchange": 3, "evaluate": 3, "export": 3, "execute": 4,
    "memory": 1, "pointwise": 1, "graph": 2,
    "slurm": 5, "cluster": 6, "snapshot": 5, "profiles": 5,
    "table": 5, "claims": 5, "collect": 5, "plots": 5, "launch": 5, "status": 5, "runner": 5, "show": 5, "report": 5, "plan": 6, "cli": 6, "predict": 6,
    "finetune": 6, "sheet": 5, "complexity": 5, "published": 5, "ledger": 5, "filters": 5,
}  # fmt: skip


def imported(path: Path) -> set[str]:
    """Modules of csn that a file imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "csn":
            parts = (node.module or "").split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names} & FLOORS.keys()
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("csn.")}
    return found


FILES = sorted((REPOSITORY / "csn").rglob("*.py"))


@pytest.mark.parametrize("path", [p for p in FILES if p.name != "__init__.py" or p.parent.name == "data"], ids=lambda p: str(p.relative_to(REPOSITORY)))
def test_imports_go_downward(path: Path) -> None:
    own = path.relative_to(REPOSITORY / "csn").parts[0].removesuffix(".py")
    for other in imported(path):
        assert other == own or FLOORS[other] <= FLOORS[own], f"{own} (floor {FLOORS[own]}) imports {other} (floor {FLOORS[other]})"


def test_the_lowest_floor_is_standard_library_only() -> None:
    for name in ("spec.py", "recipes.py", "files.py"):
        tree = ast.parse((REPOSITORY / "csn" / name).read_text())
        modules = {(node.module or "").split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert modules - {"csn"} <= sys.stdlib_module_names


@pytest.mark.parametrize("script", sorted((REPOSITORY / "experiments").glob("table*.py")), ids=lambda p: p.stem)
def test_planning_imports_no_heavy_library(script: Path, tmp_path: Path) -> None:
    code = f"""
import runpy, sys
sys.argv = [{str(script)!r}, "--plan", "--home", {str(tmp_path)!r}]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as end:
    assert not end.code, end.code
heavy = [m for m in ("torch", "pandas", "scipy", "numpy", "matplotlib", "av", "submitit") if m in sys.modules]
assert not heavy, heavy
"""
    done = run("-c", code)
    assert done.returncode == 0, done.stderr
    assert "Table" in done.stdout


def test_files_stay_readable() -> None:
    long = {str(p.relative_to(REPOSITORY)): n for p in FILES if (n := len(p.read_text().splitlines())) > 330}
    assert not long
