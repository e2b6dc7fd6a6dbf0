"""Device names for OpenIGTLink: at most 20 ASCII letters, and never the same for two things.

A name depends on what it is the name of and on nothing else, so that a scene in Slicer finds it again tomorrow.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable

from fluoronav.openigtlink.protocol import NAME_BYTES

_HEAD, _HASH = 10, 6
# What does not come apart into a letter and its marks.
_LETTERS = str.maketrans(
    {
        "ß": "ss", "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L", "đ": "d",
        "Đ": "D", "ð": "d", "Ð": "D", "þ": "th", "Þ": "Th", "ı": "i",
    }
)  # fmt: skip


def in_ascii(text: str) -> str:
    """A text in ASCII: letters without their marks, and every other sign as ``u`` and its number in hexadecimal."""
    apart = unicodedata.normalize("NFKD", unicodedata.normalize("NFC", text).translate(_LETTERS))
    letters = (
        c if " " <= c <= "~" else "" if unicodedata.combining(c) else f"u{ord(c):04X}"
        for c in apart
    )  # fmt: skip
    return "".join(letters).strip()


def _short(text: str) -> str:
    """The beginning and the end of what is too long: what tells ``..._level_5`` from ``..._level_6`` is at the end."""
    plain = in_ascii(text) or "unnamed"
    return plain if len(plain) <= NAME_BYTES else f"{plain[:_HEAD]}~{plain[_HEAD + 1 - NAME_BYTES :]}"


def _hashed(text: str, again: int = 0) -> str:
    """Some letters, and a number made of the whole name."""
    number = hashlib.sha256(text.encode() + b"\0" * again).hexdigest()[:_HASH]
    return f"{(in_ascii(text) or 'unnamed')[: NAME_BYTES - 1 - _HASH]}~{number}"


class DeviceNames:
    """Gives each thing a device name of its own.

    Parameters
    ----------
    reserved : iterable of str
        Names of our own, which nothing else gets.
    things : iterable of str
        Everything that is known at the start. Where two would share a short name, none of them gets it: each has a
        number made of its whole name at its end.
    """

    def __init__(self, reserved: Iterable[str] = (), things: Iterable[str] = ()) -> None:
        self._given = {name: name for name in reserved}
        self._taken = set(self._given)
        known = [t for t in dict.fromkeys(things) if t not in self._given]
        # A name that needs no change keeps it.
        for thing in sorted(known, key=lambda t: (_short(t) != t, t)):
            alone = _short(thing) == thing or [_short(t) for t in known].count(_short(thing)) == 1
            self._give(thing, _short(thing) if alone else _hashed(thing))

    def of(self, thing: str) -> str:
        """The device name of a thing, known at the start or not."""
        return self._given.get(thing) or self._give(thing, _short(thing))

    def changed(self) -> dict[str, str]:
        """Device names, by the name of the thing, where they differ."""
        return {thing: name for thing, name in self._given.items() if thing != name}

    def _give(self, thing: str, name: str) -> str:
        again = 0
        while name in self._taken:
            name, again = _hashed(thing, again), again + 1
        self._taken.add(name)
        self._given[thing] = name
        return name
