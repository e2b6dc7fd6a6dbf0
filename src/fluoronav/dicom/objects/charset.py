"""Character sets: a source that decodes, and which one an object needs (PS3.5 6.1)."""

from __future__ import annotations

import copy
from typing import Any

import pydicom
from pydicom.multival import MultiValue
from pydicom.valuerep import PersonName

from fluoronav.dicom.character_sets import mend_character_set

UTF8 = "ISO_IR 192"
TEXT_VRS = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})


def with_mended_charset(dataset: pydicom.Dataset) -> pydicom.Dataset:
    """A shallow copy that decodes its texts (:func:`fluoronav.dicom.character_sets.mend_character_set`)."""
    out = copy.copy(dataset)
    # The elements themselves are still those of the argument: a copy of the mapping keeps it as it was.
    out._dict = dict(dataset._dict)
    mend_character_set(out)
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
