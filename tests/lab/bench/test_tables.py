"""The documentation's tables are those of the committed JSON."""

import json
import re

import pytest

from fluoronav.lab.bench.tables import CHECKOUT, PAGES, TABLES, markdown, renewed, stale_pages

BENCH = CHECKOUT / "bench"


def test_no_page_is_stale():
    assert {str(page) for page in stale_pages()} == set(), "python -m fluoronav.lab.bench.tables renews them"


def test_every_table_is_on_a_page():
    shown = re.findall(r"<!-- table: ([\w-]+) -->", "".join((CHECKOUT / page).read_text() for page in PAGES))
    assert sorted(shown) == sorted(TABLES)


@pytest.mark.parametrize("name", TABLES)
def test_every_row_of_a_table_has_as_many_cells_as_its_header(name):
    rows = [len(line.split(" | ")) for line in markdown(TABLES[name](BENCH)).splitlines()]
    assert len(rows) > 2 and len(set(rows)) == 1


def test_what_was_transcribed_from_a_page_says_so():
    for file in BENCH.glob("*/*.json"):
        content = json.loads(file.read_text())
        assert content.get("source") == "transcribed from the published table" or "versions" in content, file


def test_a_stale_table_is_made_anew_and_the_text_around_it_stays():
    page = "before\n<!-- table: peers -->\nold\n<!-- end -->\nafter\n"
    new = renewed(page, BENCH)
    assert new.startswith("before\n<!-- table: peers -->\n| DRR |") and new.endswith("|\n<!-- end -->\nafter\n")
    assert renewed(new, BENCH) == new


def test_a_table_that_nobody_makes_is_an_error():
    with pytest.raises(KeyError, match="nothing"):
        renewed("<!-- table: nothing -->\n<!-- end -->\n", BENCH)
