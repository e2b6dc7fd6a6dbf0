"""The register of the documentation's tables, and the pages that show them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).parents[5]
PAGES = ("README.md", "docs/benches.md", "docs/bench-results.md", "docs/gpu.md", "engines/README.md")

_MARKED = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(<!-- end -->)", re.S)

Row = Sequence[object]
Rows = Callable[[Path], Iterable[Row]]
# Reads the folder `bench/`; the first row is the header.
TABLES: dict[str, Rows] = {}


def table(name: str) -> Callable[[Rows], Rows]:
    """Registers the rows of a table under the name that pages use."""

    def register(rows: Rows) -> Rows:
        TABLES[name] = rows
        return rows

    return register


def markdown(rows: Iterable[Row]) -> str:
    """A Markdown table; the first row is the header."""
    header, *body = (["" if cell is None else str(cell) for cell in row] for row in rows)
    lines = [header, ["---"] * len(header), *body]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def renewed(text: str, bench: Path) -> str:
    """A page with its marked tables made anew.

    Parameters
    ----------
    text : str
    bench : Path
        The folder that holds the JSON files.

    Raises
    ------
    KeyError
        The page names a table that does not exist.
    """
    return _MARKED.sub(lambda m: m[1] + markdown(TABLES[m[2]](bench)) + m[3], text)


def stale_pages(checkout: Path = CHECKOUT) -> dict[Path, str]:
    """Pages whose tables differ from the JSON, with the text that they should have."""
    stale = {}
    for page in (checkout / name for name in PAGES):
        text = page.read_text()
        if (new := renewed(text, checkout / "bench")) != text:
            stale[page] = new
    return stale


def read(bench: Path, name: str) -> Any:
    """What a bench measured: the JSON file of that name in the folder `bench/`."""
    return json.loads((bench / f"{name}.json").read_text())
