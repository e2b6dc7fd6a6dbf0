"""Which way up a picture is: whether its values rise or fall where more X-rays arrive.

A picture is "counts" where they rise, "inverse" where they fall, as in the wire protocol. A DICOM header says it by
PixelIntensityRelationshipSign (PS3.3 C.8.11.3.1.2). Without that, fluoroscopy (XA, RF) is shown with black bone and
radiographs (CR, DX) with white; what is shown white follows from PhotometricInterpretation, PresentationLUTShape and
the modality's rescale. Where nothing says it, the picture may: behind a round aperture's rim no X-rays arrive.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray
from pydicom.pixels.processing import apply_modality_lut

from fluoronav.dicom.xray_header import XrayHeader
from fluoronav.imaging.xray.errors import XrayFileError
from fluoronav.imaging.xray.field_of_view import Aperture, find_aperture

Float32 = NDArray[np.float32]
Polarity = Literal["counts", "inverse"]
Source = Literal["option", "header", "picture", "assumed"]

# Where the rim is looked for, pixels a side.
_RIM_SIDE = 128
# A filling that a viewer draws around a field has one value; a detector has noise there. So much of what lies outside.
_FILLED_SHARE = 0.9


@dataclass(frozen=True)
class Intensity:
    """How the values of a picture follow from the X-rays.

    Attributes
    ----------
    values : ndarray of float32, shape (rows, cols)
        As stored, or, where a table turns them into intensities, as that says.
    full : float
        The largest value that they can have.
    polarity : "counts" or "inverse"
    source : str
        What says so.
    linear : bool
        Whether they are proportional to the X-rays; else they are to their logarithm, more or less.
    notes : tuple of str
        What a person should know, in words.
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
    """The other one."""
    return "inverse" if polarity == "counts" else "counts"


def of_picture(values: Float32, full: float) -> Polarity | None:
    """What a picture itself says, by the rim of a round aperture; None where it has none, or a viewer filled it."""
    found: list[Polarity] = []
    for polarity in get_args(Polarity):
        counts = values if polarity == "counts" else np.float32(full) - values
        small = np.asarray(cv2.resize(counts, (_RIM_SIDE, _RIM_SIDE), interpolation=cv2.INTER_AREA), np.float32)
        aperture = find_aperture(small)
        if any(len(side) == 4 for side in aperture.sides) and not (polarity == "counts" and _filled(values, aperture)):
            found.append(polarity)
    return found[0] if len(found) == 1 else None


def filled_around(values: Float32) -> NDArray[np.bool_] | None:
    """What lies inside a field around which a viewer has drawn black, at a smaller size; None where there is none."""
    small = np.asarray(cv2.resize(values, (_RIM_SIDE, _RIM_SIDE), interpolation=cv2.INTER_AREA), np.float32)
    aperture = find_aperture(small)
    return aperture.field_mask if aperture.sides and _filled(values, aperture) else None


def _filled(values: Float32, aperture: Aperture) -> bool:
    size = values.shape[::-1]
    outside = cv2.resize((~aperture.field_mask).astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
    of_rim = values[outside]
    return bool(of_rim.size and (of_rim == of_rim.min()).mean() > _FILLED_SHARE)


def of_plain(values: Float32, full: float, said: Polarity | None) -> Intensity:
    """A picture without a header.

    Parameters
    ----------
    values : ndarray of float32
    full : float
        The largest that its type can hold.
    said : "counts", "inverse" or None
        What a person says.
    """
    # 12 bits in 16: turned over by all 16, nothing of the contrast were left after the logarithm.
    fullest = min(full, float(2 ** int(values.max()).bit_length() - 1)) if values.size else full
    shown = of_picture(values, fullest)
    if said is not None:
        return Intensity(
            values, fullest if said == "inverse" else full, said, "option", True, _against(said, shown, "you say")
        )
    if shown is not None:
        note = f"taken as {shown}: beyond the rim of its round field no X-rays arrive"
        return Intensity(values, fullest if shown == "inverse" else full, shown, "picture", True, (note,))
    note = (
        "nothing says whether bright is more X-ray: it is taken as counts (bone dark); say --polarity inverse for a "
        "picture with white bone"
    )
    return Intensity(values, full, "counts", "assumed", True, (note,))


def of_dicom(header: XrayHeader, values: Float32, full: float, said: Polarity | None) -> Intensity:
    """A DICOM image.

    Parameters
    ----------
    header : XrayHeader
    values : ndarray of float32
        As stored.
    full : float
        The largest that they can be.
    said : "counts", "inverse" or None
        What a person says of the stored values.

    Raises
    ------
    XrayFileError
        Attributes contradict each other.
    """
    notes: list[str] = []
    relationship = header.word("PixelIntensityRelationship")
    fluoroscopy = header.word("Modality") in ("XA", "RF")
    linear = relationship == "LIN" or (relationship == "" and fluoroscopy)
    if said is None:
        polarity, source = _said_by(header, fluoroscopy, relationship, notes)
    else:
        polarity, source = said, "option"
    # A sign, and a person, speak of the stored values; what is shown follows the rescaled ones.
    of_stored = said is not None or header.number("PixelIntensityRelationshipSign") is not None
    falls = _slope(header) < 0
    if header.get("ModalityLUTSequence") is not None:
        values, full, falls = _looked_up(header, values)
        # In fluoroscopy the table makes a logarithm linear again (PS3.3 C.8.7.1.1.2).
        linear = fluoroscopy
        if of_stored and falls:
            polarity = opposite(polarity)
    elif falls and not of_stored:
        polarity = opposite(polarity)
    shown = of_picture(values, full)
    if source == "assumed" and shown is not None and shown != polarity:
        polarity, source = shown, "picture"
        notes = [f"taken as {shown}: beyond the rim of its round field no X-rays arrive"]
    notes += _against(polarity, shown, "you say" if source == "option" else "its header says")
    return Intensity(values, full, polarity, source, linear, tuple(notes))


def _against(polarity: Polarity, shown: Polarity | None, who: str) -> tuple[str, ...]:
    if shown is None or shown == polarity:
        return ()
    return (
        f"{who} that it is {polarity}, but it looks inverted: beyond the rim of its round field it is bright; "
        f"--polarity {shown} turns it over",
    )


def _said_by(header: XrayHeader, fluoroscopy: bool, relationship: str, notes: list[str]) -> tuple[Polarity, Source]:
    """What the header says of the values: as stored, where it gives a sign, else as rescaled."""
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


def _looked_up(header: XrayHeader, values: Float32) -> tuple[Float32, float, bool]:
    """The values as the modality's table has them, the largest of it, and whether it falls."""
    dataset = header.dataset
    stored = values.astype(np.uint16)
    try:
        entries = np.asarray(apply_modality_lut(np.array([stored.min(), stored.max()]), dataset), np.float64)
        looked_up = np.asarray(apply_modality_lut(stored, dataset), np.float32)
        full = float(2 ** int(dataset.ModalityLUTSequence[0].LUTDescriptor[2]) - 1)
    except Exception as error:
        # A damaged table makes pydicom raise whatever it stumbles over.
        raise XrayFileError(f"{header.path}: its ModalityLUTSequence (0028,3000) cannot be used: {error}") from error
    if entries[0] == entries[-1]:
        raise XrayFileError(f"{header.path}: its ModalityLUTSequence (0028,3000) neither rises nor falls")
    return looked_up, full, bool(entries[-1] < entries[0])
