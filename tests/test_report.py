"""README's numbers are those of the files."""

from __future__ import annotations

from pathlib import Path

import pytest

from csn.provenance import REPOSITORY
from csn.report import filled
from csn.spec import UserError

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def test_readme_equals_the_files() -> None:
    assert filled(README) == README, "run python -m csn.report"


def test_without_results_cells_are_empty_and_claims_undecided(tmp_path: Path) -> None:
    text = filled(README, tmp_path)
    assert "| simple |  |  |  |  |  |  |  |" in text
    assert "supported |" not in text and "undecided |" in text and "nan" not in text


def test_a_block_of_no_table_is_refused() -> None:
    with pytest.raises(UserError, match="table9_none"):
        filled("<!-- results: table9_none -->\n<!-- end -->")
