"""The results as documents: the READMEs' blocks, one HTML page, and what the notebooks display. From files, never by hand.

    python -m csn.report               write the READMEs' blocks anew
    python -m csn.report PAGE.html     write the page: every table, figure and verdict, nothing to load from elsewhere

A block of a README starts at <!-- results: NAME --> or <!-- results: NAME SCALE --> and ends at <!-- end -->. NAME: a
table's, whose claims stand in the ledger, or "claims" for the ledger of all scales, or "benchmark" followed by the name of a CSV
of results/benchmarks in place of a scale. A test keeps READMEs and files equal.
"""

from __future__ import annotations

import base64
import csv
import html
import os
import platform
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from decimal import Decimal
from itertools import chain
from math import isfinite
from pathlib import Path

from csn.collect import Results, read
from csn.files import write_atomic
from csn.flags import Parser, folder, results_home
from csn.ledger import ledger, ledger_sheet, parts_sheet, scales_with_results
from csn.provenance import LIBRARIES, REPOSITORY, code_version, installed
from csn.recipes import PAPER, recipe_of
from csn.sheet import COLOURS, Sheet
from csn.show import reasons, sheets
from csn.spec import UserError
from csn.table import Table, every_table, table_of

READMES = ("README.md", "results/README.md", "results/benchmarks/README.md")
BLOCK = re.compile(r"(<!-- results: (\S+)(?: (\S+))? -->\n).*?(<!-- end -->)", re.DOTALL)
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; margin: .6rem 0; display: block; overflow-x: auto; }
th, td { padding: .2rem .7rem; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap; }
th { border-bottom: 2px solid #888; } td.text, th.text { text-align: left; } th.words { text-align: left; } td.words { text-align: left; white-space: normal; }
tr:nth-child(even) td { background: #f6f6f6; } p.caption { color: #555; font-size: .9em; } img { max-width: 100%; }
.supported { color: #00664a; font-weight: 600; } .refuted { color: #b03a00; font-weight: 600; } .undecided { color: #666; }
"""


def markdown(sheet: Sheet) -> str:
    """A sheet as a Markdown table, its caption above."""
    words = {sheet.columns[0], *sheet.text}
    out = [sheet.caption, ""] if sheet.caption else []
    out.append("| " + " | ".join(name.strip() for name in sheet.columns) + " |")
    out.append("|" + "|".join("---" if name in words else "---:" for name in sheet.columns) + "|")
    return "\n".join([*out, *("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in sheet.rows)]) + "\n"


def as_html(sheet: Sheet) -> str:
    """A sheet as an HTML table under its title, its caption below."""

    def cells(row: Sequence[str], tag: str) -> str:
        kinds = ("words" if name in sheet.text else "text" if i == 0 else "" for i, name in enumerate(sheet.columns))
        marks = (verdict if (verdict := cell.partition(":")[0]) in COLOURS else "" for cell in row)
        classes = (" ".join(filter(None, pair)) for pair in zip(kinds, marks, strict=True))
        return "".join(f'<{tag} class="{name}">{html.escape(cell.strip())}</{tag}>' for name, cell in zip(classes, row, strict=True))

    body = "\n".join(f"<tr>{cells(row, 'td')}</tr>" for row in sheet.rows)
    head = f"<h3>{html.escape(sheet.title)}</h3>\n<table>\n<tr>{cells(sheet.columns, 'th')}</tr>\n{body}\n</table>"
    return f'{head}\n<p class="caption">{html.escape(sheet.caption)}</p>\n'


def text(results: Results, judged: bool = True) -> str:
    """The sheets of results, and why rows are empty, as Markdown. judged: with the table's claims."""
    shown = results if judged else replace(results, table=replace(results.table, claims=()))
    parts = [f"**{sheet.title}.** {markdown(sheet)}" for sheet in sheets(shown, shown.table.rows)]
    told = [*reasons(results, results.table.rows), *filter(None, [results.table.note])]
    return "\n".join([parts[0], *([" ".join(told) + "\n"] if told else []), *parts[1:]])


def where() -> tuple[Path, list[str]]:
    """Where a notebook reads: CSN_HOME (default: the repository), and CSN_SCALES (default: all with results there)."""
    home = Path(os.environ.get("CSN_HOME") or REPOSITORY)
    return home, os.environ.get("CSN_SCALES", "").split() or scales_with_results(home)


def claims(home: Path, scales: Sequence[str]) -> str:
    """The ledger as Markdown."""
    return markdown(ledger_sheet(ledger(home, scales)))


def parts(home: Path, scales: Sequence[str]) -> str:
    """Every part of every claim as Markdown, folded."""
    sheet = parts_sheet(ledger(home, scales))
    return f"<details><summary>{sheet.title}</summary>\n\n{markdown(sheet)}\n</details>\n"


def known(table: Table, home: Path = REPOSITORY, scales: Sequence[str] | None = None) -> list[Results]:
    """The results of table at every scale that has some (or at these); without any, those of its own scale, empty."""
    if not table.trains:
        return [Results(table, PAPER, ())]
    found = [read(table, recipe_of(scale), home) for scale in scales or scales_with_results(home)]
    return [results for results in found if results.lines] or [read(table, recipe_of(table.scale), home)]


def filled(readme: str, home: Path = REPOSITORY) -> str:
    """readme with every block written anew from the CSVs below home. Raises UserError for an unknown table or scale."""

    def block(match: re.Match[str]) -> str:
        start, name, scale, end = match.groups()
        if name == "claims":
            return start + claims(home, [scale] if scale else scales_with_results(home)) + end
        if name == "benchmark":
            return start + benchmark(home / "results" / "benchmarks" / f"{scale}.csv") + end
        table = table_of(name)
        results = read(table, recipe_of(scale or table.scale), home) if table.trains else Results(table, PAPER, ())
        return start + text(results, judged=False) + end

    return BLOCK.sub(block, readme)


def benchmark(path: Path) -> str:
    """A benchmark's CSV as Markdown, three digits a number, its machine and setting above. Raises UserError."""
    try:
        told = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError(f"Cannot read {path} ({error.strerror}); run the benchmark that writes it.") from None
    facts = "; ".join(line[2:] for line in told if line.startswith("# "))
    columns, *rows = csv.reader(line for line in told if not line.startswith("# "))
    words = tuple(name for i, name in enumerate(columns) if not any(numeric(row[i]) for row in rows))
    return markdown(Sheet(path.stem, tuple(columns), [tuple(rounded(cell) for cell in row) for row in rows], facts, text=words))


def numeric(cell: str) -> bool:
    try:
        return isfinite(float(cell))
    except ValueError:
        return False


def rounded(cell: str) -> str:
    """A number's three leading digits, never as a power of ten; anything else as it is."""
    if not numeric(cell) or cell.lstrip("-").isdigit():
        return cell
    number = Decimal(f"{float(cell):.3g}")
    return f"{number:.0f}" if abs(number) >= 100 else f"{float(number):.3g}" if abs(number) >= 0.001 else f"{number:f}"


def page(home: Path = REPOSITORY) -> str:
    """One self-contained HTML page: verdicts first, then every table at every scale with results, with its figures."""
    chosen = scales_with_results(home)
    return "\n".join(chain(head(home, chosen), *(section(table, home, chosen) for table in every_table()), ["</body></html>\n"]))


def head(home: Path, scales: Sequence[str]) -> Iterator[str]:
    """The page's beginning: where its numbers come from, and the ledger."""
    code = code_version()
    libraries = ", ".join(f"{name} {found}" for name in LIBRARIES if (found := installed(name)))
    commits = sorted({line["commit"] for table in every_table() if table.trains for scale in scales for line in read(table, recipe_of(scale), home).lines})
    yield f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>CSN, reproduced</title><style>{STYLE}</style></head><body>'
    yield "<h1>Channel-separated convolutional networks, reproduced table by table</h1>"
    own = (code["commit"] or "unknown") + (" (changed)" if code["dirty"] else "")
    yield f"<p>Scales: {', '.join(scales)}. Written by commit {own} with Python {platform.python_version()}, {libraries}. "
    yield f"The results were run with the commits {', '.join(filter(None, commits)) or '(none yet)'}.</p>"
    claims_of = ledger(home, scales)
    yield "<h2>Claims</h2>" + as_html(ledger_sheet(claims_of))
    yield f"<details><summary>Every part, with its interval</summary>{as_html(parts_sheet(claims_of))}</details>"


def section(table: Table, home: Path, scales: Sequence[str]) -> Iterator[str]:
    """A table's part of the page."""
    from csn import plots

    yield f"<h2>{html.escape(table.title)}</h2>"
    for results in known(table, home, scales):
        for sheet in sheets(results, table.rows):
            yield as_html(sheet)
        yield from (f"<p>{html.escape(sentence)}</p>" for sentence in [*reasons(results, table.rows), *filter(None, [table.note])])
        for name in table.figures if results.lines or any(row.published for row in table.rows) else ():
            content = base64.b64encode(plots.picture(getattr(plots, name)(results), "svg")).decode()
            yield f'<p><img alt="{html.escape(f"{table.title}: {name}")}" src="data:image/svg+xml;base64,{content}"></p>'


def main(arguments: Sequence[str] | None = None) -> int:
    parser = Parser(prog="python -m csn.report", description="Write the READMEs' results, or one HTML page of all results.")
    parser.add_argument("page", type=Path, nargs="?", help="HTML file to write; without it the READMEs' blocks are written")
    parser.add_argument("--home", type=folder, default=REPOSITORY, help="folder of results/ (default: the repository)")
    try:
        args = parser.parse_args(arguments)
        home = results_home(args.home)
        if args.page:
            write_atomic(args.page, page(home).encode())
            print(f"{args.page}: open it in a browser")
        else:
            for readme in (REPOSITORY / name for name in READMES):
                old = readme.read_text(encoding="utf-8")
                new = filled(old, home)
                write_atomic(readme, new.encode())
                print(f"{readme}: " + ("its results are as they were" if new == old else "its results are written anew"))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
