"""A briefing as HTML and as PDF, from the same data; needs the extra `reports`."""

from __future__ import annotations

import base64
import logging
from importlib.resources import files

from fluoronav.reports.briefing.content import Briefing

# The size of the pictures by their number: up to so many; chosen so that a plan of few levels takes three pages.
_SIZES = ((8, "large"), (12, "small"))
_SMALLEST = "smallest"


class PdfError(RuntimeError):
    """The PDF cannot be made on this computer; the text says what is missing."""


def html_of(briefing: Briefing) -> str:
    """The document as one HTML file, pictures and style within.

    Raises
    ------
    ImportError
        The extra is not installed.
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    here = files("fluoronav.reports.briefing")
    room = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    room.filters["b64"] = lambda data: base64.b64encode(data).decode()
    room.filters["joined"] = _joined
    template = room.from_string(here.joinpath("briefing.html.j2").read_text(encoding="utf-8"))
    n = len(briefing.views.cards)
    return template.render(
        **{name: getattr(briefing, name) for name in Briefing.__dataclass_fields__},
        css=Markup(here.joinpath("briefing.css").read_text(encoding="utf-8")),
        size=next((size for most, size in _SIZES if n <= most), _SMALLEST),
    )


def _joined(text: str) -> str:
    """A text whose values stay on one line with their units."""
    for name in ("orbital", "angular"):
        text = text.replace(f"{name} ", f"{name}\u00a0")
    return text.replace(" mm", "\u00a0mm").replace(" x ", "\u00a0\u00d7\u00a0")


def ready_for_pdf() -> None:
    """Says before any work what a PDF would miss.

    Raises
    ------
    ImportError
        The extra is not installed.
    PdfError
        The system's Pango is missing.
    """
    for name in ("weasyprint", "weasyprint.progress", "fontTools"):  # they tell of every step
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        import weasyprint  # noqa: F401
    except OSError as error:
        raise PdfError(
            "a PDF needs the library Pango: apt-get install libpango-1.0-0 libpangoft2-1.0-0 libharfbuzz-subset0, or "
            f"name a file that ends with .html ({str(error).splitlines()[0]})"
        ) from error


def pdf_of(html: str) -> bytes:
    """The document as PDF, A4. Nothing is fetched: the HTML holds all that it shows.

    Raises
    ------
    ImportError, PdfError
        As of :func:`ready_for_pdf`.
    """
    ready_for_pdf()
    from weasyprint import HTML
    from weasyprint.urls import URLFetcher

    document = HTML(string=html, url_fetcher=URLFetcher(allowed_protocols=("data",), fail_on_errors=True)).write_pdf()
    assert document is not None  # it is where no file is named
    return document
