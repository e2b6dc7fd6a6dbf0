"""Documents of cases, and how they are read."""

import html
import io
import json
import os
import re

import pytest
from tests.reports.briefed_case import briefed_case

from fluoronav.cli import main

pytest.importorskip("jinja2", reason="the extra `reports` is not installed")


def briefing(case, out, *more):
    """Writes a briefing with its JSON; returns that."""
    done = main(["report", "briefing", str(case), "--out", str(out), "--json", str(out) + ".json", *more])
    assert done == 0
    return json.loads((out.parent / f"{out.name}.json").read_text())


def words(document):
    """The text of an HTML document, with single spaces."""
    body = re.sub(r"<style>.*?</style>", "", document, flags=re.S)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).split())


@pytest.fixture(scope="session")
def pdf_pages():
    """Takes a PDF's bytes; the text of each page. Skips where this computer cannot make a PDF."""
    try:
        import weasyprint  # noqa: F401
    except OSError as error:
        if os.environ.get("CI"):
            pytest.fail(f"Pango is not installed: {error}")
        pytest.skip(f"Pango is not installed: {error}")
    reader = pytest.importorskip("pypdf", reason="pypdf is not installed (extra `dev`)")
    return lambda data: [" ".join(page.extract_text().split()) for page in reader.PdfReader(io.BytesIO(data)).pages]


@pytest.fixture(scope="session")
def approved(tmp_path_factory):
    """A case with an approved plan; tests copy it before they change it."""
    return briefed_case(tmp_path_factory.mktemp("approved") / "P2KQX7")
