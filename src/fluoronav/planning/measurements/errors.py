"""Why a measurement is not made."""

from __future__ import annotations


class Refused(ValueError):
    """Something that cannot be measured; the text says why, and what to do where something can be done."""
