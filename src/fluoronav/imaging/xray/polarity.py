"""The polarity of an image: whether its values rise or fall where more X-rays arrive.

An image is "counts" where they rise, "inverse" where they fall, as in the wire protocol. A DICOM header says it by
PixelIntensityRelationshipSign (PS3.3 C.8.11.3.1.2). Without that, fluoroscopy (XA, RF) is shown with black bone and
radiographs (CR, DX) with white; what is shown white follows from PhotometricInterpretation, PresentationLUTShape and
the modality's rescale. Where nothing says it, the image may: outside a round field of view no X-rays arrive.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import cv2
import numpy as np
import pydicom
from numpy.typing import NDArray

from fluoronav.dicom.decoding import syntax_of
from fluoronav.dicom.xray_header import XrayHeader
from fluoronav.dicom.xray_intensity import IntensityRelationship
from fluoronav.imaging.xray.errors import XrayFileError
from fluoronav.imaging.xray.field_of_view import FieldOfView, find_field_of_view
from fluoronav.imaging.xray.field_shapes import FIELD_SIDE, Circle

Float32 = NDArray[np.float32]
Polarity = Literal["counts", "inverse"]
Source = Literal["option", "header", "picture", "assumed"]

# Chosen: minimum fraction of the pixels outside the field that have one value where a viewer has filled it; a detector
# has noise there.
_FILLED_FRACTION = 0.9


@dataclass(frozen=True)
class Intensity:
    """How the values of an image follow from the X-rays.

    Attributes
    ----------
    values : ndarray of float32, shape (rows, cols)
        As stored, or, where the file has a modality lookup table, mapped by it.
    full : float
        Largest possible value.
    polarity : "counts" or "inverse"
    source : str
        Where the polarity is from.
    linear : bool
        Values are proportional to the X-rays; else, roughly, to their logarithm.
    notes : tuple of str
        Remarks for the user.
    """

    values: Float32
    full: float
    polarity: Polarity
    source: Source
    linear: bool
    notes: tuple[str, ...] = ()

    def counts(self) -> Float32:
        """The values, more for more X-rays."""
        return self.values if self.polarity == "counts" else np.float32(self.full) - self.values


def opposite(polarity: Polarity) -> Polarity:
    """The other polarity."""
    return "inverse" if polarity == "counts" else "counts"


def polarity_of_image(values: Float32, full: float) -> Polarity | None:
    """The polarity with which the image has a round field of view; None where both have one or neither has.

    A field that a viewer has filled with black around does not count.
    """
    found: list[Polarity] = []
    for polarity in get_args(Polarity):
        counts = values if polarity == "counts" else np.float32(full) - values
        view = _field_of(counts)
        is_round = any(isinstance(edge, Circle) for edge in view.edges)
        if is_round and not (polarity == "counts" and _filled(values, view)):
            found.append(polarity)
    return found[0] if len(found) == 1 else None


def filled_around(values: Float32) -> NDArray[np.bool_] | None:
    """Mask (128 x 128) of a field that a viewer has filled with black around; None where there is none."""
    view = _field_of(values)
    return view.field_mask if view.edges and _filled(values, view) else None


def _field_of(counts: Float32) -> FieldOfView:
    small = cv2.resize(counts, (FIELD_SIDE, FIELD_SIDE), interpolation=cv2.INTER_AREA)
    return find_field_of_view(np.asarray(small, np.float32))


def _filled(values: Float32, view: FieldOfView) -> bool:
    size = values.shape[::-1]
    outside = cv2.resize((~view.field_mask).astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
    around = values[outside]
    return bool(around.size and (around == around.min()).mean() > _FILLED_FRACTION)


def of_plain(values: Float32, full: float, option: Polarity | None) -> Intensity:
    """The intensities of an image without a header.

    Parameters
    ----------
    values : ndarray of float32
    full : float
        The largest that its type can hold.
    option : "counts", "inverse" or None
        The user's option.
    """
    # 12 bits stored in 16: inverted over all 16, the logarithm would leave no contrast.
    fullest = min(full, float(2 ** int(values.max()).bit_length() - 1)) if values.size else full
    by_image = polarity_of_image(values, fullest)
    if option is not None:
        return Intensity(
            values,
            fullest if option == "inverse" else full,
            option,
            "option",
            True,
            _contradiction(option, by_image, "you say"),
        )
    if by_image is not None:
        note = f"taken as {by_image}: beyond the rim of its round field no X-rays arrive"
        return Intensity(values, fullest if by_image == "inverse" else full, by_image, "picture", True, (note,))
    note = (
        "nothing says whether bright is more X-ray: it is taken as counts (bone dark); say --polarity inverse for a "
        "picture with white bone"
    )
    return Intensity(values, full, "counts", "assumed", True, (note,))


def of_dicom(
    header: XrayHeader,
    values: Float32,
    full: float,
    option: Polarity | None,
    relationship: IntensityRelationship,
) -> Intensity:
    """The intensities of a DICOM image.

    Parameters
    ----------
    header : XrayHeader
    values : ndarray of float32
        As stored.
    full : float
        Largest possible stored value.
    option : "counts", "inverse" or None
        The user's option, for the stored values.
    relationship : IntensityRelationship
        What the values are of the X-rays.

    Raises
    ------
    XrayFileError
        Attributes contradict each other.
    """
    notes: list[str] = []
    fluoroscopy = header.is_fluoroscopy
    if option is None:
        polarity, source = _of_header(header, fluoroscopy, relationship.said, notes)
    else:
        polarity, source = option, "option"
    # The sign and the option are of the stored values; the presentation is of the rescaled ones.
    of_stored = option is not None or header.number("PixelIntensityRelationshipSign") is not None
    falls = _slope(header) < 0
    if relationship.table is not None:
        values, full, falls = _mapped(header, values, relationship.table)
        if of_stored and falls:
            polarity = opposite(polarity)
    elif falls and not of_stored:
        polarity = opposite(polarity)
    by_image = polarity_of_image(values, full)
    if source == "assumed" and by_image is not None and by_image != polarity:
        polarity, source = by_image, "picture"
        notes = [f"taken as {by_image}: beyond the rim of its round field no X-rays arrive"]
    notes += _contradiction(polarity, by_image, "you say" if source == "option" else "its header says")
    notes += [relationship.note] if relationship.note else []
    return Intensity(values, full, polarity, source, relationship.response == "linear", tuple(notes))


def _contradiction(polarity: Polarity, by_image: Polarity | None, who: str) -> tuple[str, ...]:
    if by_image is None or by_image == polarity:
        return ()
    return (
        f"{who} that it is {polarity}, but it looks inverted: beyond the rim of its round field it is bright; "
        f"--polarity {by_image} turns it over",
    )


def _of_header(header: XrayHeader, fluoroscopy: bool, relationship: str, notes: list[str]) -> tuple[Polarity, Source]:
    """Polarity by the header: of the stored values where it gives a sign, else of the rescaled ones."""
    sign = header.number("PixelIntensityRelationshipSign")
    if sign is not None:
        if sign not in (1, -1):
            raise XrayFileError(
                f"{header.path}: PixelIntensityRelationshipSign (0028,1041) is {sign:g}; 1 or -1 was expected: say "
                "--polarity counts or inverse"
            )
        return ("counts" if sign == 1 else "inverse"), "header"
    white_is_low = header.word("PhotometricInterpretation") == "MONOCHROME1"
    shape = header.word("PresentationLUTShape")
    if shape in ("IDENTITY", "INVERSE") and (shape == "INVERSE") != white_is_low:
        raise XrayFileError(
            f"{header.path}: PresentationLUTShape (2050,0020) {shape} and PhotometricInterpretation "
            f"{header.word('PhotometricInterpretation')} contradict each other: say --polarity counts or inverse"
        )
    bone_is_white = not fluoroscopy
    polarity: Polarity = "counts" if white_is_low == bone_is_white else "inverse"
    if fluoroscopy and relationship in ("LIN", "LOG"):
        return polarity, "header"
    notes.append(
        f"has no PixelIntensityRelationshipSign: taken as shown with {'white' if bone_is_white else 'black'} bone, as "
        f"{header.word('Modality')} is; --polarity counts or inverse says it of the stored values"
    )
    return polarity, "assumed"


def _slope(header: XrayHeader) -> float:
    slope = header.number("RescaleSlope")
    if slope == 0:
        raise XrayFileError(f"{header.path}: RescaleSlope (0028,1053) is 0: every pixel would have the same value")
    return 1.0 if slope is None else slope


def _mapped(header: XrayHeader, values: Float32, table: pydicom.Dataset) -> tuple[Float32, float, bool]:
    """Values mapped by a lookup table, its largest possible output, and whether it falls."""
    try:
        entries, first, full = _entries(header, table)
    except Exception as error:
        # pydicom raises exceptions of any type on a damaged table.
        raise XrayFileError(f"{header.path}: {_name_of(table)} cannot be used: {error}") from error
    at = np.clip(values.astype(np.int64) - first, 0, len(entries) - 1)
    ends = entries[at.min()], entries[at.max()]
    if ends[0] == ends[1]:
        raise XrayFileError(f"{header.path}: {_name_of(table)} neither rises nor falls")
    return entries[at], full, bool(ends[1] < ends[0])


def _entries(header: XrayHeader, table: pydicom.Dataset) -> tuple[Float32, int, float]:
    """A table's entries, the first stored value, and its largest possible output (PS3.3 C.11.1.1)."""
    count, first, bits = (int(n) for n in table.LUTDescriptor)
    count = count or 2**16
    data = table.LUTData
    if isinstance(data, bytes):
        order = "<" if syntax_of(header.dataset).is_little_endian else ">"
        data = np.frombuffer(data, "u1" if len(data) < 2 * count else f"{order}u2")
    entries = np.asarray(data, np.float32)[:count]
    if len(entries) != count or not 8 <= bits <= 16:
        raise ValueError(f"it has {len(entries)} entries of {bits} bits; LUTDescriptor (0028,3002) says {count}")
    return entries, first, float(2**bits - 1)


def _name_of(table: pydicom.Dataset) -> str:
    if "LUTFunction" in table:
        return "its PixelIntensityRelationshipLUTSequence (0028,9422)"
    return "its ModalityLUTSequence (0028,3000)"
