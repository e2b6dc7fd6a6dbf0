"""One X-ray frame from a file (TIFF, PNG or DICOM) as attenuation, whatever its polarity."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pydicom
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pydicom.pixels.utils import pixel_array
from pydicom.uid import DeflatedExplicitVRLittleEndian

from fluoronav.dicom.errors import DicomError
from fluoronav.dicom.xray_geometry import XrayGeometry, check_camera, check_orientation, read_geometry
from fluoronav.dicom.xray_header import XrayHeader
from fluoronav.geometry import Camera
from fluoronav.geometry.camera import LIMITS
from fluoronav.imaging.xray.errors import XrayFileError
from fluoronav.imaging.xray.field_of_view import dark_level, find_field_of_view
from fluoronav.imaging.xray.field_shapes import FIELD_SIDE
from fluoronav.imaging.xray.polarity import Intensity, Polarity, filled_around, of_dicom, of_plain
from fluoronav.paths import regular_file

Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class XrayFrame:
    """One frame.

    Attributes
    ----------
    attenuation : ndarray of float32, shape (rows, cols)
        Minus the logarithm of the intensity, up to gain and offset: higher where there is bone.
    field_mask : ndarray of bool, shape (128, 128)
        Field of view without its penumbra.
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


def read_xray(path: Path, *, with_camera: bool, frame: int = 1, polarity: Polarity | None = None) -> XrayFrame:
    """Reads a frame.

    Parameters
    ----------
    path : Path
        TIFF or PNG (8 or 16 bit), or DICOM XA, RF, CR or DX.
    with_camera : bool
        True where a camera file is given: the header's geometry is not read, and pixels are not mirrored.
    frame : int
        Which frame of a DICOM multi-frame image, from 1.
    polarity : "counts" or "inverse", optional
        Whether the stored values rise or fall where there is more X-ray; by default the header or the image decides.

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
        if read_file_meta_info(path).get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
            raise XrayFileError(
                f"{path}: is deflated as a whole, which is not read: store it in another transfer syntax"
            )
        dataset = pydicom.dcmread(path)
    except XrayFileError:
        raise
    except InvalidDicomError:
        return _plain(path, frame, polarity)
    except Exception as error:
        # pydicom raises exceptions of any type on a damaged header.
        raise XrayFileError(f"{path}: is damaged and cannot be read as DICOM: {error}") from error
    try:
        return _dicom(XrayHeader(path, dataset, frame), with_camera, polarity)
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


def _dicom(header: XrayHeader, with_camera: bool, polarity: Polarity | None) -> XrayFrame:
    path = header.path
    full = header.check_pixels()
    if with_camera:
        check_orientation(header)
    try:
        header.check_unused_bits()
        stored = np.asarray(pixel_array(header.dataset, index=header.frame - 1))
    except DicomError:
        raise
    except Exception as error:
        raise XrayFileError(f"{path}: its pixel data cannot be decoded: {error}") from error
    padded = header.padding(stored)
    header.check_values(stored, padded, full)
    values = stored.astype(np.float32).clip(0, full)
    _check_contrast(path, values)
    intensity = of_dicom(header, values, full, polarity)
    geometry = None if with_camera else read_geometry(header)
    notes = () if header.frames == 1 else (f"frame {header.frame} of {header.frames} is taken; --frame names another",)
    return _frame(path, intensity, geometry, padded, notes, header)


def _check_contrast(path: Path, values: Float32) -> None:
    if float(values.std()) == 0:
        raise XrayFileError(f"{path}: every pixel has the same value: there is nothing to register to")


def _frame(
    path: Path,
    intensity: Intensity,
    geometry: XrayGeometry | None = None,
    padded: NDArray[np.bool_] | None = None,
    notes: tuple[str, ...] = (),
    header: XrayHeader | None = None,
) -> XrayFrame:
    counts = intensity.counts()
    if geometry is not None and geometry.mirrored:
        counts = np.ascontiguousarray(counts[:, ::-1])
        padded = None if padded is None else np.ascontiguousarray(padded[:, ::-1])
    small = np.asarray(cv2.resize(counts, (FIELD_SIDE, FIELD_SIDE), interpolation=cv2.INTER_AREA), dtype=np.float32)
    field_mask = find_field_of_view(small).field_mask
    dark = min(dark_level(small, field_mask), intensity.full / 2)
    if padded is not None and padded.any():
        filled = cv2.resize(padded.astype(np.float32), (FIELD_SIDE, FIELD_SIDE), interpolation=cv2.INTER_AREA)
        field_mask = field_mask & (filled == 0)
    if intensity.polarity == "inverse":
        # Inverted, the black that a viewer has drawn around the field would be open beam.
        field = filled_around(intensity.values)
        if field is not None:
            field_mask = field_mask & (field[:, ::-1] if geometry is not None and geometry.mirrored else field)
    if intensity.linear:
        attenuation = -np.log(np.maximum(counts - np.float32(dark), 1) / (intensity.full - dark))
    else:
        attenuation = -counts / np.float32(intensity.full)
    return XrayFrame(
        path,
        attenuation.astype(np.float32, copy=False),
        field_mask,
        geometry,
        intensity.polarity,
        intensity.source,
        (*notes, *intensity.notes),
        header,
    )


__all__ = ["XrayFileError", "XrayFrame", "XrayGeometry", "read_xray"]
