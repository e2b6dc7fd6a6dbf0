"""The DICOM header of an X-ray image: the attributes of one frame, and checks of its pixels against them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.uid import (
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    MultiFrameSingleBitSecondaryCaptureImageStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
)

from fluoronav.dicom.decoding import UNCOMPRESSED, syntax_of
from fluoronav.dicom.errors import DicomError
from fluoronav.geometry.camera import LIMITS

MODALITIES = ("XA", "RF", "CR", "DX")
# Pictures of images (PS3.3 A.8): whatever geometry they carry is of no detector.
_PICTURES = (
    SecondaryCaptureImageStorage,
    MultiFrameSingleBitSecondaryCaptureImageStorage,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
)


class XrayHeader:
    """Attributes for one frame, from the data set itself or from its functional groups (PS3.3 C.7.6.16).

    Parameters
    ----------
    path : Path
        For messages.
    dataset : pydicom.Dataset
    frame : int
        From 1.
    """

    def __init__(self, path: Path, dataset: pydicom.Dataset, frame: int = 1) -> None:
        self.path, self.dataset, self.frame = path, dataset, frame

    def get(self, name: str) -> Any:
        """The value of an attribute; None where it is missing or empty."""
        for dataset in (self.dataset, *self._groups()):
            value = dataset.get(name)
            if value is not None and value != "" and not (isinstance(value, (list, tuple)) and not value):
                return value
        return None

    def items(self, name: str) -> list[pydicom.Dataset]:
        """The items of a sequence, of the data set or of the frame's functional groups; empty where it is missing."""
        for dataset in (self.dataset, *self._group_items()):
            if dataset.get(name):
                return list(dataset.get(name))
        return []

    def is_per_frame(self, name: str) -> bool:
        """Whether an attribute is said for this frame alone, by its functional groups."""
        per_frame = self.dataset.get("PerFrameFunctionalGroupsSequence") or []
        return any(
            element.VR == "SQ" and element.value and element.value[0].get(name) is not None
            for groups in per_frame[self.frame - 1 : self.frame]
            for element in groups
        )

    def _groups(self) -> Iterator[pydicom.Dataset]:
        for groups in self._group_items():
            for element in groups:
                if element.VR == "SQ" and element.value:
                    yield element.value[0]

    def _group_items(self) -> Iterator[pydicom.Dataset]:
        per_frame = self.dataset.get("PerFrameFunctionalGroupsSequence") or []
        shared = self.dataset.get("SharedFunctionalGroupsSequence") or []
        yield from (*per_frame[self.frame - 1 : self.frame], *shared[:1])

    @property
    def sop_class(self) -> str:
        """UID of the SOP class; empty where none is said."""
        meta = getattr(self.dataset, "file_meta", None)
        return str(self.dataset.get("SOPClassUID") or (meta.get("MediaStorageSOPClassUID") if meta else "") or "")

    @property
    def is_picture(self) -> bool:
        """Whether it is a Secondary Capture: a picture of an image, without the geometry of its exposure."""
        return self.sop_class in _PICTURES

    @property
    def is_fluoroscopy(self) -> bool:
        """Whether it is of a C-arm (XA, RF), not a radiograph (CR, DX)."""
        return self.word("Modality") in ("XA", "RF")

    def word(self, name: str) -> str:
        """An attribute's text in capitals; empty where it is missing."""
        value = self.get(name)
        return "" if value is None else str(value).strip().upper()

    def number(self, name: str) -> float | None:
        """An attribute's number; None where it is missing.

        Raises
        ------
        DicomError
            It is not one, or not finite.
        """
        value = self.get(name)
        if value is None:
            return None
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise DicomError(f"{self.path}: {name} is {str(value)[:40]!r}; a number was expected")
        return number

    def numbers(self, name: str, count: int) -> tuple[float, ...] | None:
        """An attribute's numbers; None where it is missing; raises as :meth:`number` does."""
        value = self.get(name)
        if value is None:
            return None
        try:
            numbers = tuple(float(v) for v in value)
        except (TypeError, ValueError):
            numbers = ()
        if len(numbers) != count or not all(math.isfinite(n) for n in numbers):
            raise DicomError(f"{self.path}: {name} is {str(value)[:40]!r}; {count} numbers were expected")
        return numbers

    def integer(self, name: str, default: int) -> int:
        """An attribute's whole number; raises as :meth:`number` does."""
        number = self.number(name)
        if number is not None and number != int(number):
            raise DicomError(f"{self.path}: {name} is {number:g}; a whole number was expected")
        return default if number is None else int(number)

    @property
    def frames(self) -> int:
        """Number of frames in the file."""
        return max(self.integer("NumberOfFrames", 1), 1)

    def check_pixels(self) -> float:
        """The largest possible value of a pixel; checks that the pixels are of a supported kind.

        Raises
        ------
        DicomError
            Before anything is decoded.
        """
        path = self.path
        modality = self.word("Modality")
        if modality not in MODALITIES and not self.is_picture:
            raise DicomError(f"{path}: has modality {modality or 'none'}; {', '.join(MODALITIES)} was expected")
        samples, said = self.integer("SamplesPerPixel", 1), self.word("PhotometricInterpretation") or "nothing"
        grey = samples == 1 and said in ("MONOCHROME1", "MONOCHROME2")
        if not grey and not (self.is_picture and samples == 3):
            raise DicomError(f"{path}: is a colour image ({said}); an X-ray has one grey value a pixel")
        rows, cols = self.integer("Rows", 0), self.integer("Columns", 0)
        if not (0 < rows <= LIMITS.most_side and 0 < cols <= LIMITS.most_side and rows * cols <= LIMITS.most_pixels):
            raise DicomError(
                f"{path}: has {rows} x {cols} pixels; 1 to {LIMITS.most_side} a side and {LIMITS.most_pixels} are taken"
            )
        if not 1 <= self.frame <= self.frames:
            raise DicomError(f"{path}: has {self.frames} frames, not {self.frame}")
        allocated, stored = self.integer("BitsAllocated", 16), self.integer("BitsStored", 16)
        high = self.integer("HighBit", stored - 1)
        if allocated not in (8, 16) or not 1 <= stored <= allocated or high != stored - 1:
            raise DicomError(
                f"{path}: BitsAllocated, BitsStored and HighBit are {allocated}, {stored} and {high}; 8 or 16 bits, "
                "whose lower ones are stored, were expected"
            )
        return float(2 ** (stored - self.integer("PixelRepresentation", 0)) - 1)

    def check_unused_bits(self) -> None:
        """Refuses pixels with bits set above BitsStored; old overlays may set them (PS3.5 8.1.2).

        Raises
        ------
        DicomError
        """
        dataset = self.dataset
        syntax = syntax_of(dataset)
        allocated, stored = self.integer("BitsAllocated", 16), self.integer("BitsStored", 16)
        has_overlay = any(0x6000 <= tag.group <= 0x60FF for tag in dataset.keys())  # noqa: SIM118, elements are what it iterates
        if syntax not in UNCOMPRESSED or has_overlay or stored == allocated or self.integer("PixelRepresentation", 0):
            return
        order = "<" if syntax.is_little_endian else ">"
        kind = np.dtype("u1" if allocated == 8 else f"{order}u2")
        data = dataset.PixelData
        largest = int(np.frombuffer(data, kind, len(data) // kind.itemsize).max(initial=0))
        if largest >= 2**stored:
            raise DicomError(
                f"{self.path}: has values up to {largest}, BitsStored says up to {2**stored - 1}: its header is wrong"
            )

    def check_values(self, values: NDArray[Any], padded: NDArray[np.bool_], full: float) -> None:
        """Refuses pixels that contradict the header."""
        image = values[~padded]
        if image.size and (image.min() < 0 or image.max() > full):
            raise DicomError(
                f"{self.path}: has values from {image.min()} to {image.max()}, BitsStored and "
                f"PixelRepresentation say 0 to {full:g}: a difference image, or a damaged header"
            )

    def padding(self, values: NDArray[Any]) -> NDArray[np.bool_]:
        """Mask of padding pixels (PS3.3 C.7.5.1.1.2), shape of the image."""
        value = self.number("PixelPaddingValue")
        if value is None:
            return np.zeros(values.shape, bool)
        limit = self.number("PixelPaddingRangeLimit")
        low, high = sorted((value, value if limit is None else limit))
        return (values >= low) & (values <= high)
