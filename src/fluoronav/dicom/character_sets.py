"""The character set that a file's texts are in, where the file says none or a wrong one.

SpecificCharacterSet (0008,0005) says in which letters names and descriptions are written (PS3.3 C.12.1.1.2). Files of
real archives leave it out, name one that does not exist, or have texts in another. No file is lost for that: the texts
are read as UTF-8 where they are valid UTF-8, else as Latin-1, and the data set says so from then on, so that objects
made from it are right.
"""

from __future__ import annotations

import pydicom
from pydicom.charset import convert_encodings, decode_bytes, default_encoding, python_encoding
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.valuerep import CUSTOMIZABLE_CHARSET_VR, TEXT_VR_DELIMS

_ESCAPE, _JAPANESE = 0x1B, b"\x1b$B"  # ISO 2022: begins another character set; JIS X 0208
_ASCII = frozenset({"", "ISO_IR 6", "ISO 2022 IR 6"})  # the default repertoire, which pydicom reads as Latin-1
_REPLACED = "\ufffd"  # what pydicom puts where letters cannot be decoded


def mend_character_set(dataset: pydicom.Dataset) -> str:
    """Makes SpecificCharacterSet the one that the texts are in.

    Parameters
    ----------
    dataset : pydicom.Dataset
        As read, before any text was decoded. It is changed where its character set is absent or wrong.

    Returns
    -------
    str
        What was wrong and what is taken instead; empty where nothing was. No text of the file is in it.
    """
    said = dataset.get("SpecificCharacterSet")
    terms = [str(t) for t in ([said] if isinstance(said, str) else said or [])]
    texts = [v for v in _texts(dataset) if any(b > 0x7F or b == _ESCAPE for b in v)]
    known = all(map(_is_known, terms))
    if known and (not texts or (any(terms) and _decodes(texts, terms))):
        return ""
    taken, name = _guessed(texts)
    dataset.SpecificCharacterSet = taken
    implicit, little = dataset.original_encoding
    dataset.set_original_encoding(implicit, little, convert_encodings(taken))
    declared = f"is {', '.join(terms)[:60]}" if any(terms) else "is absent"
    wrong = "" if not any(terms) else ", which its texts are not in" if known else ", which does not exist"
    return f"SpecificCharacterSet (0008,0005) {declared}{wrong}: its texts are read as {name}"


def _guessed(texts: list[bytes]) -> tuple[str | list[str], str]:
    """The character set of undeclared texts, and its name."""
    if any(_JAPANESE in v for v in texts):
        return ["", "ISO 2022 IR 87"], "Japanese (ISO 2022)"
    return ("ISO_IR 192", "UTF-8") if all(map(_is_utf8, texts)) else ("ISO_IR 100", "Latin-1")


def _is_known(term: str) -> bool:
    """Whether a term is one of the standard's, or pydicom knows which of them is meant."""
    return term in python_encoding or convert_encodings([term]) != [default_encoding]


def _texts(dataset: pydicom.Dataset) -> list[bytes]:
    """The undecoded texts of the top level."""
    found = []
    for tag in dataset.keys():  # noqa: SIM118, elements are what it iterates
        element = dataset.get_item(tag)
        if not isinstance(element, RawDataElement) or not isinstance(element.value, bytes):
            continue
        vr = element.VR or (dictionary_VR(tag) if dictionary_has_tag(tag) else "UN")
        if vr in CUSTOMIZABLE_CHARSET_VR:
            found.append(element.value)
    return found


def _decodes(texts: list[bytes], terms: list[str]) -> bool:
    if _ASCII.issuperset(terms) and not all(map(bytes.isascii, texts)):
        return False
    try:
        encodings = convert_encodings(terms)
        return not any(_REPLACED in decode_bytes(value, encodings, TEXT_VR_DELIMS) for value in texts)
    except (LookupError, ValueError):
        return False


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
