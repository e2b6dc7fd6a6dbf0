"""Names as people say them."""

from __future__ import annotations

import re

from fluoronav.planning.anatomy import level_of

_NAME = re.compile(r"\b[a-z]+(?:_[A-Za-z0-9]+)+\b")


def readable(name: str) -> str:
    """ "vertebrae_T8" as "T8", "common_carotid_artery_left" as "common carotid artery left"."""
    return level_of(name) or name.replace("_", " ")


def readable_text(text: str) -> str:
    """A sentence with the names of structures in it as people say them."""
    return _NAME.sub(lambda found: readable(found[0]), text)
