"""Secondary captures (SC): a picture with graphics burnt in, for viewers without presentation states (PS3.3 A.8.1)."""

from __future__ import annotations

import cv2
import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from fluoronav.dicom.errors import DicomError
from fluoronav.dicom.objects.graphics import Graphics, Line, Point, Text
from fluoronav.dicom.objects.modules import finished, identity, image_reference
from fluoronav.dicom.objects.presentation import window_of, with_draft_mark
from fluoronav.dicom.objects.provenance import Provenance, coded, digest_of
from fluoronav.dicom.objects.source import Source

_SHIFT = 4  # fractional bits of OpenCV's coordinates
_TEXT_HEIGHT = 1 / 45  # of the picture's height; chosen: readable where the whole picture fills a screen
_FONT_PX = 22.0  # height of OpenCV's Hershey font at scale 1
# PS3.16 CID 7203 and 7202: what the picture was made of, and how.
_SOURCE_IMAGE = Code("121322", "DCM", "Source image for image processing operation")


def secondary_capture(
    source: Source,
    provenance: Provenance,
    pixels: NDArray[np.generic],
    graphics: Graphics,
    *,
    frame: int = 1,
    description: str = "Guidance, burnt in",
) -> Dataset:
    """The twin of a presentation state: the same graphics burnt into the picture.

    Parameters
    ----------
    source : Source
        One X-ray image, single or multi-frame.
    provenance : Provenance
    pixels : ndarray, shape (rows, columns)
        Stored values of that frame.
    graphics : Graphics
        In pixels of the image.
    frame : int
        Counted from 1.

    Raises
    ------
    DicomError
        Pixels of another size than the image, or no such frame.
    """
    image = source.single()
    source.check_frame(frame)
    rows, columns = int(image.Rows), int(image.Columns)
    if pixels.shape != (rows, columns):
        raise DicomError(f"{source.name}: is {rows} x {columns} pixels; those to draw on are {pixels.shape}")
    drawn = with_draft_mark(graphics.within(rows, columns), provenance, rows, columns)
    picture = burnt_in(windowed(source, pixels), drawn)
    ids = identity("SC", source, provenance, digest_of(str(frame), picture))
    out = hd.sc.SCImage(
        pixel_array=picture,
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "F"),  # replaced by the source's below
        study_instance_uid=source.study_uid,
        series_instance_uid=ids.series_uid,
        series_number=ids.series_number,
        sop_instance_uid=ids.instance_uid,
        instance_number=1,
        manufacturer=provenance.producer.manufacturer,
    )
    reference = image_reference(image, (frame,))
    reference.PurposeOfReferenceCodeSequence = [coded(_SOURCE_IMAGE)]
    out.SourceImageSequence = [reference]
    out.ConversionType = "WSD"  # made on a workstation
    out.ImageType = ["DERIVED", "SECONDARY"]
    out.DerivationDescription = "Graphics of guidance burnt in"
    out.BurnedInAnnotation = "NO"  # of what identifies a patient (PS3.3 C.7.6.1); the graphics do not
    orientation = image.get("PatientOrientation")
    out.add_new("PatientOrientation", "CS", list(orientation) if orientation else None)
    return finished(out, source, provenance, description)


def windowed(source: Source, pixels: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Stored values as grey levels as they are shown, by the image's rescale and first window (PS3.3 C.11.2.1.2)."""
    image = source.first
    slope, intercept = float(image.get("RescaleSlope") or 1), float(image.get("RescaleIntercept") or 0)
    center, width = window_of(image)
    values = pixels.astype(np.float32) * slope + intercept
    grey = ((values - (center - 0.5)) / max(width - 1, 1) + 0.5) * 255
    out = np.clip(np.rint(grey), 0, 255).astype(np.uint8)
    return 255 - out if image.get("PhotometricInterpretation") == "MONOCHROME1" else out


def burnt_in(grey: NDArray[np.uint8], graphics: Graphics) -> NDArray[np.uint8]:
    """The picture in colour, shape (rows, columns, 3), RGB, with the graphics drawn."""
    out = np.repeat(grey[..., None], 3, axis=2)
    rows = grey.shape[0]
    scale, thick = rows * _TEXT_HEIGHT / _FONT_PX, max(round(rows / 500), 1)
    taken: list[tuple[int, int, int, int]] = []
    for g in graphics:
        color = _rgb(g.color)
        if isinstance(g, Line):
            cv2.polylines(out, [_fixed(g.points_px)], False, color, thick, cv2.LINE_AA, _SHIFT)
        elif isinstance(g, Point):
            x, y = (int(v) for v in _fixed(g.at_px))
            cv2.circle(out, (x, y), (4 * thick) << _SHIFT, color, thick, cv2.LINE_AA, _SHIFT)
        else:
            _write(out, g, scale, thick, taken)
    return out


def _write(
    out: NDArray[np.uint8], text: Text, scale: float, thick: int, taken: list[tuple[int, int, int, int]]
) -> None:
    """A text below and to the right of its point, on a dark ground, below the texts that are there already."""
    ascii_text = text.text.encode("ascii", "replace").decode()  # the font has no other letters
    (width, height), below = cv2.getTextSize(ascii_text, cv2.FONT_HERSHEY_SIMPLEX, scale, thick)
    edge = 2 * thick
    x = min(max(round(float(text.at_px[0])) + 3 * edge, edge), max(out.shape[1] - width - edge, edge))
    y = min(round(float(text.at_px[1])) + height + 3 * edge, out.shape[0] - below - edge)
    for left, top, right, bottom in sorted(taken, key=lambda box: box[1]):
        if x - edge < right and left < x + width + edge and y - height - edge < bottom and top < y + below + edge:
            y = min(bottom + height + edge, out.shape[0] - below - edge)
    box = (max(x - edge, 0), max(y - height - edge, 0), x + width + edge, y + below + edge)
    taken.append(box)
    ground = out[box[1] : box[3], box[0] : box[2]]
    ground //= 4
    cv2.putText(out, ascii_text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, scale, _rgb(text.color), thick, cv2.LINE_AA)


def _rgb(color: str) -> tuple[int, ...]:
    return tuple(int(color[k : k + 2], 16) for k in (1, 3, 5))


def _fixed(points_px: NDArray[np.float64]) -> NDArray[np.int32]:
    return np.rint(points_px * (1 << _SHIFT)).astype(np.int32)
