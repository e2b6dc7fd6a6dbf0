"""docs/troubleshooting.md explains every reason that a registration can give, and no other."""

import re

import pytest

from fluoronav.stream import reasons
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text()
WORDS = [re.sub(r"{.*?}", "N", value) for name, value in vars(reasons).items() if name.isupper()]
ROWS = [line.strip("| ").split(" | ") for line in PAGE.splitlines() if line.startswith("| ")]


@pytest.mark.parametrize("words", WORDS)
def test_every_reason_is_explained_and_says_what_to_do(words):
    (row,) = (row for row in ROWS if row[0] == words)
    assert len(row) == 3 and all(row)


def test_no_reason_is_explained_that_nothing_says():
    explained = {row[0] for row in ROWS} - {"the screen says", "---", "*Searching*, no reason yet"}
    assert explained == set(WORDS)
