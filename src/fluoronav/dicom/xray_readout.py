"""Pixels as the detector read them, and as they are stored: FieldOfViewOrigin, Rotation and HorizontalFlip.

After the readout an image is turned clockwise by FieldOfViewRotation (0018,7032) and then, where
FieldOfViewHorizontalFlip (0018,7034) says so, mirrored left to right (PS3.3 C.8.11.4.1.1). Offsets on the detector are
those before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fluoronav.dicom.errors import DicomError
from fluoronav.dicom.xray_header import XrayHeader
from fluoronav.dicom.xray_spacing import DetectorSpacing


@dataclass(frozen=True)
class Readout:
    """How stored pixels lie to those that were read.

    Attributes
    ----------
    quarter_turns : int
        Clockwise, 0 to 3, before mirroring.
    mirrored : bool
        Left to right, after turning.
    """

    quarter_turns: int
    mirrored: bool

    @property
    def is_plain(self) -> bool:
        return self.quarter_turns == 0 and not self.mirrored

    def undone(self, stored: NDArray[Any]) -> NDArray[Any]:
        """An array of stored pixels as they were read, shape (rows, columns)."""
        turned = stored[:, ::-1] if self.mirrored else stored
        return np.ascontiguousarray(np.rot90(turned, self.quarter_turns))

    def stored_at(self, row: float, col: float, rows: int, cols: int) -> tuple[float, float]:
        """Where a place (row, column) of the image as read lies in the stored image of `rows` x `cols` pixels."""
        for k in range(self.quarter_turns):
            height = rows if (self.quarter_turns - k) % 2 == 0 else cols  # before this quarter turn
            row, col = col, height - 1 - row
        return row, (cols - 1 - col if self.mirrored else col)

    def __str__(self) -> str:
        return f"turned by {90 * self.quarter_turns} degrees and {'mirrored' if self.mirrored else 'not mirrored'}"


def read_readout(header: XrayHeader) -> Readout:
    """The turning and mirroring after readout; none where the header says nothing.

    Raises
    ------
    DicomError
    """
    turned, flipped = header.number("FieldOfViewRotation") or 0.0, header.word("FieldOfViewHorizontalFlip")
    if turned % 90 != 0:
        raise DicomError(
            f"{header.path}: FieldOfViewRotation (0018,7032) is {turned:g} degrees; 0, 90, 180 or 270 was expected"
        )
    if flipped not in ("", "YES", "NO"):
        raise DicomError(
            f"{header.path}: FieldOfViewHorizontalFlip (0018,7034) is {flipped[:16]!r}; YES or NO was expected"
        )
    return Readout(int(turned // 90) % 4, flipped == "YES")


def isocentre_px(header: XrayHeader, spacing: DetectorSpacing) -> tuple[float, float, str]:
    """Where the isocentre is projected in the stored image: (row, column), pixels, and what says so.

    Enhanced XA gives it on the detector, in elements from the centre of the first one (PositionOfIsocenterProjection,
    PS3.3 C.8.19.5); in XA it is the middle of the image (PS3.17 FFF.2.1.5.2).

    Raises
    ------
    DicomError
    """
    rows, cols = header.integer("Rows", 0), header.integer("Columns", 0)
    middle = ((rows - 1) / 2, (cols - 1) / 2, "the middle of the image")
    at = header.numbers("PositionOfIsocenterProjection", 2)
    origin = header.numbers("FieldOfViewOrigin", 2)
    element = header.numbers("DetectorElementSpacing", 2)
    if at is None or origin is None or element is None:
        return middle
    if min(element) <= 0:
        raise DicomError(f"{header.path}: DetectorElementSpacing (0018,7022) is {element}; it must be above 0")
    readout = read_readout(header)
    stored = (spacing.down_mm, spacing.right_mm)
    read = stored if readout.quarter_turns % 2 == 0 else stored[::-1]
    # Element k is centred at k; pixel i of b elements is centred at origin + (i + 1/2) b - 1/2.
    place = [(a - o + 0.5) * e / s - 0.5 for a, o, e, s in zip(at, origin, element, read, strict=True)]
    row, col = readout.stored_at(place[0], place[1], rows, cols)
    if not (-rows <= row <= 2 * rows and -cols <= col <= 2 * cols):
        raise DicomError(
            f"{header.path}: PositionOfIsocenterProjection (0018,9430) and FieldOfViewOrigin (0018,7030) put the "
            f"isocentre at row {row:.0f} and column {col:.0f} of {rows} x {cols} pixels: they do not fit together"
        )
    return row, col, "PositionOfIsocenterProjection (0018,9430) and FieldOfViewOrigin (0018,7030)"
