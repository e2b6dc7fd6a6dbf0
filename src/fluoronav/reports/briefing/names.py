"""Names as people say them."""

from __future__ import annotations

from fluoronav.planning.anatomy import level_of


def readable(name: str) -> str:
    """ "vertebrae_T8" as "T8", "common_carotid_artery_left" as "common carotid artery left"."""
    return level_of(name) or name.replace("_", " ")
