"""Opens the outbox of a site for a process that is not the node."""

from __future__ import annotations

from fluoronav.pacs.database import Database
from fluoronav.pacs.identities import Identities
from fluoronav.pacs.outbox import Outbox
from fluoronav.pacs.pseudonyms import Pseudonyms
from fluoronav.pacs.quiet import quiet_libraries
from fluoronav.site.site_file import SiteFile

DATABASE = "node.sqlite"


def open_outbox(site: SiteFile) -> Outbox:
    """The outbox, whether the node runs or not; raises what :class:`Database` and :class:`Pseudonyms` raise."""
    quiet_libraries()
    database, pseudonyms = Database(site.folder / DATABASE), Pseudonyms.load(site.key)
    return Outbox(site.folder, database, pseudonyms, Identities(database, pseudonyms))
