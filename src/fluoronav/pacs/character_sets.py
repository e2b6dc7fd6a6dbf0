"""Text of images that say no character set, or a wrong one (PS3.3 C.12.1.1.2)."""

from __future__ import annotations

from pydicom.charset import python_encoding
from pydicom.dataset import Dataset

_UTF8 = "ISO_IR 192"
_LATIN1 = "ISO_IR 100"
_ASCII = ("", "ISO_IR 6", "ISO 2022 IR 6")  # pydicom reads these as Latin-1


def character_set(header: Dataset) -> str | list[str]:
    """The character set that the texts of a header are in.

    What is declared counts, if the names can be read by it. Without it, bytes that are valid UTF-8 are UTF-8, and
    others Latin-1: what scanners write that leave the attribute out.

    Parameters
    ----------
    header : Dataset
        Read from a file, so that its texts are still bytes.
    """
    raw = _bytes(header)
    declared = header.get("SpecificCharacterSet")
    if declared and _reads(raw, declared):
        return declared if isinstance(declared, str) else list(declared)
    if raw.isascii():
        return _UTF8
    try:
        raw.decode("utf-8")
        return _UTF8
    except UnicodeDecodeError:
        return _LATIN1


def _bytes(header: Dataset) -> bytes:
    """The undecoded texts of the patient's module."""
    parts = []
    for tag in header.keys():  # noqa: SIM118 (a Dataset's iterator decodes)
        element = header.get_item(tag)
        value = getattr(element, "value", None)
        if tag.group == 0x0010 and isinstance(value, bytes):
            parts.append(value)
    return b"".join(parts)


def _reads(raw: bytes, declared: object) -> bool:
    """Whether the bytes can be read in a declared character set; with code extensions that is pydicom's to judge."""
    names = [declared] if isinstance(declared, str) else list(declared)  # type: ignore[call-overload]
    if len(names) > 1:
        return all(not name or name in python_encoding for name in names)
    if names[0] in _ASCII:
        return raw.isascii()
    encoding = python_encoding.get(names[0])
    if encoding is None:
        return False
    try:
        raw.decode(encoding)
        return True
    except (UnicodeDecodeError, LookupError):
        return False
