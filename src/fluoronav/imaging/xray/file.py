"""One X-ray frame from a file (TIFF, PNG or DICOM) as attenuation, whatever its polarity."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom.errors import InvalidDicomError

from fluoronav.dicom.decoding import LOSSY, frame_pixels, syntax_of
from fluoronav.dicom.errors import DicomError
from fluoronav.dicom.reading import read_dataset
from fluoronav.dicom.xray_geometry import XrayGeometry, check_camera, read_geometry
from fluoronav.dicom.xray_header import XrayHeader
from fluoronav.dicom.xray_intensity import Response, read_relationship
from fluoronav.dicom.xray_readout import read_readout
from fluoronav.dicom.xray_shutters import read_shutters
from fluoronav.geometry import Camera
from fluoronav.geometry.camera import LIMITS
from fluoronav.imaging.xray.anatomy_mask import find_anatomy, find_anatomy_of_log
from fluoronav.imaging.xray.errors import XrayFileError
from fluoronav.imaging.xray.field_of_view import dark_level, find_field_of_view
from fluoronav.imaging.xray.field_shapes import FIELD_SIDE
from fluoronav.imaging.xray.polarity import Intensity, Polarity, filled_around, of_dicom, of_plain
from fluoronav.paths import regular_file

Float32 = NDArray[np.float32]
_SAME_GREY = 2  # largest difference of a grey picture's colours; chosen: JPEG's rounding


@dataclass(frozen=True)
class XrayFrame:
    """One frame.

    Attributes
    ----------
    attenuation : ndarray of float32, shape (rows, cols)
        Minus the logarithm of the intensity, up to gain and offset: higher where there is bone.
    field_mask, anatomy_mask : ndarray of bool, shape (128, 128)
        Field of view without its penumbra, and the pixels of it that show anatomy alone (:mod:`.anatomy_mask`).
    geometry : XrayGeometry or None
        From the header, where there is one.
    polarity : "counts" or "inverse"
        Whether the file's values rise or fall where there is more X-ray.
    polarity_source : "option", "header", "picture" or "assumed"
        Where the polarity is from.
    notes : tuple of str
        Remarks for the user on how the file was read.
    header : XrayHeader or None
        Of a DICOM file.
    """

    path: Path
    attenuation: Float32
    field_mask: NDArray[np.bool_]
    anatomy_mask: NDArray[np.bool_]
    geometry: XrayGeometry | None
    polarity: Polarity = "counts"
    polarity_source: str = "assumed"
    notes: tuple[str, ...] = ()
    header: XrayHeader | None = None

    def check_camera(self, camera: Camera) -> None:
        """Raises :class:`XrayFileError` where a camera file contradicts the file's own header."""
        if self.header is not None:
            try:
                check_camera(self.header, camera)
            except DicomError as error:
                raise XrayFileError(str(error)) from error


def read_xray(
    path: Path,
    *,
    with_camera: bool,
    frame: int = 1,
    polarity: Polarity | None = None,
    intensity: Response | None = None,
) -> XrayFrame:
    """Reads a frame.

    Parameters
    ----------
    path : Path
        TIFF or PNG (8 or 16 bit), or DICOM XA, RF, CR or DX.
    with_camera : bool
        True where a camera file is given: the header's geometry is not read, and pixels lie as the detector read them.
    frame : int
        Which frame of a DICOM multi-frame image, from 1.
    polarity : "counts" or "inverse", optional
        Whether the stored values rise or fall where there is more X-ray; by default the header or the image decides.
    intensity : "linear" or "log", optional
        Whether the stored values of a DICOM image are proportional to the X-rays or to their logarithm; by default the
        header decides.

    Raises
    ------
    XrayFileError
    """
    path = Path(path)
    try:
        regular_file(path)
    except OSError as error:
        raise XrayFileError(str(error)) from error
    try:
        notes: list[str] = []
        dataset = read_dataset(path, notes=notes)
    except DicomError as error:
        raise XrayFileError(str(error)) from error
    except InvalidDicomError:
        return _plain(path, frame, polarity)
    except Exception as error:
        # pydicom raises exceptions of any type on a damaged header.
        raise XrayFileError(f"{path}: is damaged and cannot be read as DICOM: {error}") from error
    try:
        return _dicom(XrayHeader(path, dataset, frame), with_camera, (polarity, intensity), notes)
    except DicomError as error:
        raise XrayFileError(str(error)) from error


def _plain(path: Path, frame: int, polarity: Polarity | None) -> XrayFrame:
    _check_size(path, frame)
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise XrayFileError(f"{path}: cannot be read as an image (TIFF, PNG or DICOM)")
    if image.ndim == 3:
        if any(not np.array_equal(image[..., 0], image[..., k]) for k in range(1, min(image.shape[2], 3))):
            raise XrayFileError(f"{path}: is a colour picture; an X-ray has one grey value a pixel")
        image = image[..., 0]
    if image.dtype not in (np.uint8, np.uint16):
        raise XrayFileError(f"{path}: has pixels of type {image.dtype}; 8 or 16 bit counts were expected")
    values = image.astype(np.float32)
    _check_contrast(path, values)
    return _frame(path, of_plain(values, float(np.iinfo(image.dtype).max), polarity))


def _check_size(path: Path, frame: int) -> None:
    """Refuses images that are too large, before they are decoded, and files of several pages."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        raise XrayFileError(f"{path}: cannot be read as an image (TIFF, PNG or DICOM)") from None
    size = reader.GetSize()
    if size[0] * size[1] > LIMITS.most_pixels:
        raise XrayFileError(f"{path}: has {size[1]} x {size[0]} pixels; at most {LIMITS.most_pixels} are taken")
    pages = size[2] if len(size) > 2 else 1
    if pages > 1:
        raise XrayFileError(f"{path}: has {pages} pages; save the one that is meant as a file of its own")
    if frame != 1:
        raise XrayFileError(f"{path}: has 1 frames, not {frame}")


def _dicom(
    header: XrayHeader, with_camera: bool, options: tuple[Polarity | None, Response | None], notes: list[str]
) -> XrayFrame:
    path, (polarity, response) = header.path, options
    full = header.check_pixels()
    readout = read_readout(header)
    geometry = None if with_camera else read_geometry(header)
    stored = _grey(frame_pixels(header.dataset, header.frame - 1, path), path)
    header.check_unused_bits()
    padded = header.padding(stored)
    header.check_values(stored, padded, full)
    values = stored.astype(np.float32).clip(0, full)
    _check_contrast(path, values)
    if header.is_picture:
        if header.word("PhotometricInterpretation") == "MONOCHROME1":
            values = np.float32(full) - values  # as a viewer shows it
        notes.append("is a Secondary Capture, a picture of an image: it has no geometry, and may be windowed")
        intensity = of_plain(values, full, polarity)
    else:
        intensity = of_dicom(header, values, full, polarity, read_relationship(header, response))
    shutters = read_shutters(header)
    notes += [*shutters.notes, *(geometry.notes if geometry is not None else ())]
    if syntax_of(header.dataset) in LOSSY or header.word("LossyImageCompression") == "01":
        notes.append("was compressed with loss: fine contrast is missing")
    if header.frames > 1:
        notes.append(f"frame {header.frame} of {header.frames} is taken; --frame names another")
    orient = _as_stored
    if geometry is not None and geometry.mirrored:
        orient = _reversed_columns
    elif with_camera and not readout.is_plain:
        orient = readout.undone
        notes.append(f"was {readout} after readout: that was undone, since a camera file is of pixels as they are read")
    hidden = _fraction(padded) > 0
    if shutters.mask is not None:
        # One more pixel of the field's: the edge of a collimator is blurred.
        hidden |= cv2.dilate((_fraction(~shutters.mask) > 0).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    frame = _frame(path, intensity, orient, hidden)
    return replace(frame, geometry=geometry, header=header, notes=(*notes, *frame.notes))


def _grey(pixels: NDArray[Any], path: Path) -> NDArray[Any]:
    """The grey values of a colour picture whose channels are the same."""
    if pixels.ndim == 2:
        return pixels
    if int(np.ptp(pixels, axis=2).max()) > _SAME_GREY:
        raise XrayFileError(f"{path}: is a colour picture; an X-ray has one grey value a pixel")
    return pixels[..., 0]


def _as_stored(image: NDArray[Any]) -> NDArray[Any]:
    return image


def _reversed_columns(image: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(image[:, ::-1])


def _fraction(mask: NDArray[np.bool_]) -> Float32:
    """The part of each pixel of the field of view (128 x 128) that a mask covers."""
    small = cv2.resize(mask.astype(np.float32), (FIELD_SIDE, FIELD_SIDE), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.float32)


def _check_contrast(path: Path, values: Float32) -> None:
    if float(values.std()) == 0:
        raise XrayFileError(f"{path}: every pixel has the same value: there is nothing to register to")


def _frame(
    path: Path,
    intensity: Intensity,
    orient: Callable[[NDArray[Any]], NDArray[Any]] = _as_stored,
    hidden: NDArray[np.bool_] | None = None,
) -> XrayFrame:
    """The frame of an image; `hidden` (128 x 128) is not seen; `orient` turns an array as stored to the camera's."""
    counts = orient(intensity.counts())
    small = np.asarray(cv2.resize(counts, (FIELD_SIDE, FIELD_SIDE), interpolation=cv2.INTER_AREA), dtype=np.float32)
    view = find_field_of_view(small)
    field_mask = view.field_mask
    dark = min(dark_level(small, field_mask), intensity.full / 2)
    if hidden is not None:
        field_mask = field_mask & ~orient(hidden)
    if intensity.polarity == "inverse":
        # Inverted, the black that a viewer has drawn around the field would be open beam.
        field = filled_around(intensity.values)
        if field is not None:
            field_mask = field_mask & orient(field)
    if intensity.linear:
        attenuation = -np.log(np.maximum(counts - np.float32(dark), 1) / (intensity.full - dark))
        anatomy_mask = find_anatomy(small, dark, field_mask, view.median_signal)
    else:
        attenuation = -counts / np.float32(intensity.full)
        anatomy_mask = find_anatomy_of_log(-small, field_mask)
    return XrayFrame(
        path,
        attenuation.astype(np.float32, copy=False),
        field_mask,
        anatomy_mask,
        None,
        intensity.polarity,
        intensity.source,
        intensity.notes,
    )


__all__ = ["XrayFileError", "XrayFrame", "XrayGeometry", "read_xray"]
