"""Character sets: which one a source was really written in, and which one an object needs (PS3.5 6.1)."""

from __future__ import annotations

import copy
from typing import Any

import pydicom
from pydicom.charset import convert_encodings, decode_bytes
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.multival import MultiValue
from pydicom.valuerep import PersonName

UTF8 = "ISO_IR 192"
LATIN1 = "ISO_IR 100"
_ASCII = ("", "ISO_IR 6", "ISO 2022 IR 6")  # the default repertoire, which has no other letters
# What tells a wrong character set: texts that hold names and words of people.
_TELLING = (
    "PatientName", "StudyDescription", "SeriesDescription", "InstitutionName", "ReferringPhysicianName",
)  # fmt: skip
TEXT_VRS = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})


def with_believed_charset(dataset: pydicom.Dataset) -> pydicom.Dataset:
    """A shallow copy that decodes its texts.

    Texts with letters beyond ASCII, but without SpecificCharacterSet (0008,0005), or in another than it says, are read
    as UTF-8 where they are valid UTF-8, else as Latin-1.
    """
    out = copy.copy(dataset)
    # The elements themselves are still those of the argument: a copy of the mapping keeps it as it was.
    out._dict = dict(dataset._dict)
    raw = _raw_texts(dataset)
    if not any(any(byte > 127 for byte in text) for text in raw):
        return out
    declared = dataset.get("SpecificCharacterSet") or ""
    if declared not in _ASCII and all(_decodes(text, declared) for text in raw):
        return out
    believed = UTF8 if all(_is_utf8(text) for text in raw) else LATIN1
    out.SpecificCharacterSet = believed
    out.set_original_encoding(dataset.original_encoding[0], dataset.original_encoding[1], convert_encodings(believed))
    return out


def needs_utf8(dataset: pydicom.Dataset) -> bool:
    """Whether a text of the dataset, at any depth, has letters beyond ASCII."""
    for element in dataset:
        if element.VR == "SQ":
            if any(needs_utf8(item) for item in element.value):
                return True
        elif element.VR in TEXT_VRS and not str(_plain(element.value)).isascii():
            return True
    return False


def unicode_copy(dataset: pydicom.Dataset, keywords: tuple[str, ...]) -> pydicom.Dataset:
    """A dataset with some of the elements, whose texts are Unicode and remember no encoding."""
    out = pydicom.Dataset()
    for keyword in keywords:
        if keyword in dataset:
            _add(out, dataset[keyword])
    return out


def _add(out: pydicom.Dataset, element: pydicom.DataElement) -> None:
    if element.VR == "SQ":
        items = []
        for item in element.value or ():
            inner = pydicom.Dataset()
            for e in item:
                if not e.tag.is_private:
                    _add(inner, e)
            items.append(inner)
        out.add_new(element.tag, "SQ", items)
    else:
        value = element.value
        out.add_new(element.tag, element.VR, _plain(value) if element.VR == "PN" else copy.copy(value))


def _plain(value: Any) -> Any:
    """A person's name, or several, as text."""
    if isinstance(value, PersonName):
        return str(value)
    if isinstance(value, (list, tuple, MultiValue)):
        return [str(v) for v in value]
    return value


def _raw_texts(dataset: pydicom.Dataset) -> list[bytes]:
    out = []
    for keyword in _TELLING:
        if keyword not in dataset:
            continue
        element = dataset.get_item(keyword)
        if isinstance(element, RawDataElement) and isinstance(element.value, bytes) and _is_text(keyword):
            out.append(element.value)
    return out


def _is_text(keyword: str) -> bool:
    return dictionary_VR(keyword) in TEXT_VRS


def _decodes(text: bytes, declared: object) -> bool:
    """Whether the declared character set has all the bytes of a text."""
    try:
        encodings = convert_encodings(declared)  # pyright: ignore[reportArgumentType]
        decoded = decode_bytes(text, encodings, {0x5C, 0x3D, 0x5E})
    except (LookupError, UnicodeError, ValueError):
        return False
    return "\ufffd" not in decoded


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
