"""Tables of the documentation, made from what benches measured (``bench/*.json``).

``python -m fluoronav.lab.bench.tables`` renews the tables between ``<!-- table: NAME -->`` and ``<!-- end -->`` in the
pages.
"""

from fluoronav.lab.bench.tables import (  # noqa: F401  they register their tables
    cohort,
    hospital,
    registration,
    stream,
    witness,
)
from fluoronav.lab.bench.tables.pages import CHECKOUT, PAGES, TABLES, markdown, renewed, stale_pages

__all__ = ["CHECKOUT", "PAGES", "TABLES", "markdown", "renewed", "stale_pages"]
