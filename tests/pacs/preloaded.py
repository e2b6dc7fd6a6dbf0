"""What a node and a command of the PACS side have before they are forked (tests/warm.py): modules alone."""

import fluoronav.cli
import fluoronav.pacs.live
import fluoronav.pacs.node
import fluoronav.pacs.outgoing
import fluoronav.pacs.status
import fluoronav.site.init
import fluoronav.site.site_file  # noqa: F401
