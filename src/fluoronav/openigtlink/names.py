"""Device names for OpenIGTLink: at most 20 ASCII letters, and unique.

A name depends on the thing's own name and on similar names, not on the order in which things appear, so that a saved
scene in Slicer finds it again.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable

from fluoronav.openigtlink.protocol import NAME_BYTES

_NUMBER = 6  # hexadecimal digits
# Letters that Unicode does not decompose into a letter and its marks.
_LETTERS = str.maketrans(
    {
        "ß": "ss", "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L", "đ": "d",
        "Đ": "D", "ð": "d", "Ð": "D", "þ": "th", "Þ": "Th", "\u0131": "i",
    }
)  # fmt: skip


def in_ascii(text: str) -> str:
    """A text in ASCII: letters without their marks, any other character as ``u`` and its number in hexadecimal."""
    apart = unicodedata.normalize("NFKD", unicodedata.normalize("NFC", text).translate(_LETTERS))
    letters = (c if " " <= c <= "~" else "" if unicodedata.combining(c) else f"u{ord(c):04X}" for c in apart)
    return "".join(letters).strip()


def _short(thing: str, room: int = NAME_BYTES) -> str:
    """The beginning and the end of a long name: ``..._level_5`` and ``..._level_6`` differ at the end."""
    plain = in_ascii(thing) or "unnamed"
    head = room // 2
    return plain if len(plain) <= room else f"{plain[:head]}~{plain[head + 1 - room :]}"


def _numbered(thing: str, room: int = NAME_BYTES, again: int = 0) -> str:
    """The first letters of a name, and a hash of the whole."""
    number = hashlib.sha256(thing.encode(errors="replace") + b"\0" * again).hexdigest()[:_NUMBER]
    return f"{(in_ascii(thing) or 'unnamed')[: room - 1 - _NUMBER]}~{number}"


class DeviceNames:
    """Gives each thing a unique device name.

    Parameters
    ----------
    reserved : iterable of str
        Names that nothing else gets.
    things : iterable of str
        Things that are known at the start. Of several that share a short name, one that needed no change keeps it; each
        of the others ends in a hash of its whole name.
    tools : iterable of str
        Tools that are known at the start.
    ending : str
        Follows the name of a tool, and is never shortened.
    """

    def __init__(
        self, reserved: Iterable[str] = (), things: Iterable[str] = (), tools: Iterable[str] = (), ending: str = ""
    ) -> None:
        self._ending = ending
        self._given: dict[tuple[str, str], str] = {(name, ""): name for name in reserved}
        self._taken = set(self._given.values())
        known = [(t, "") for t in things if (t, "") not in self._given] + [(t, ending) for t in tools]
        known = list(dict.fromkeys(known))
        short = {key: self._shortened(*key) for key in known}
        for key in sorted(known, key=lambda k: (short[k] != "".join(k), k)):
            alone = short[key] == "".join(key) or list(short.values()).count(short[key]) == 1
            self._give(key, short[key] if alone else self._with_number(*key))

    def of(self, thing: str) -> str:
        """The device name of a structure, known at the start or not."""
        return self._of((thing, ""))

    def of_tool(self, tool: str) -> str:
        """The device name of a tool's pose."""
        return self._of((tool, self._ending))

    def changed(self) -> dict[str, str]:
        """Device names by full name, where the two differ."""
        return {"".join(key): name for key, name in self._given.items() if "".join(key) != name}

    def _of(self, key: tuple[str, str]) -> str:
        return self._given.get(key) or self._give(key, self._shortened(*key))

    def _shortened(self, thing: str, ending: str) -> str:
        return _short(thing, NAME_BYTES - len(ending)) + ending

    def _with_number(self, thing: str, ending: str, again: int = 0) -> str:
        return _numbered(thing, NAME_BYTES - len(ending), again) + ending

    def _give(self, key: tuple[str, str], name: str) -> str:
        again = 0
        while name in self._taken:
            name, again = self._with_number(*key, again), again + 1
        self._taken.add(name)
        self._given[key] = name
        return name
