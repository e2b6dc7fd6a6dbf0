"""Opens the parts of a node for a process that is not the node: the command line."""

from __future__ import annotations

from fluoronav.pacs.arrivals import Arrivals
from fluoronav.pacs.database import Database
from fluoronav.pacs.fetches import Fetches
from fluoronav.pacs.identities import Identities
from fluoronav.pacs.outbox import Outbox
from fluoronav.pacs.pseudonyms import Pseudonyms
from fluoronav.pacs.quiet import quiet_libraries
from fluoronav.site.site_file import SiteFile

DATABASE = "node.sqlite"


def open_outbox(site: SiteFile) -> Outbox:
    """The outbox, whether the node runs or not; raises what :class:`Database` and :class:`Pseudonyms` raise."""
    database, pseudonyms = _opened(site)
    return Outbox(site.folder, database, pseudonyms, Identities(database, pseudonyms))


def open_arrivals(site: SiteFile) -> Arrivals:
    """What came, whether the node runs or not."""
    database, pseudonyms = _opened(site)
    return Arrivals(site.folder, database, pseudonyms, site.issuer)


def open_fetches(site: SiteFile) -> Fetches:
    """What is to be fetched, whether the node runs or not."""
    return Fetches(*_opened(site))


def _opened(site: SiteFile) -> tuple[Database, Pseudonyms]:
    quiet_libraries()
    return Database(site.folder / DATABASE), Pseudonyms.load(site.key)
