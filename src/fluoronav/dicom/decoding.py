"""Pixels of one frame, in the transfer syntaxes that hospitals store CT and X-ray images in.

SimpleITK's GDCM decodes what is compressed. It reads files alone, so that each frame is handed to it as a file in
memory that holds the frame's pixels and nothing of the patient. To pydicom it is a decoder plugin named
:data:`PLUGIN`, which every ``pixel_array`` may use once this module is imported.
"""

from __future__ import annotations

import io
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import DecodeRunner, get_decoder
from pydicom.pixels.utils import pixel_array
from pydicom.uid import (
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
    SecondaryCaptureImageStorage,
)

from fluoronav.dicom.errors import DicomError

PLUGIN = "fluoronav"
UNCOMPRESSED = (
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
)
LOSSY = (JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless, JPEG2000)
COMPRESSED = (JPEGLossless, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless, RLELossless, *LOSSY)
# pydicom asks a plugin for these two names.
DECODER_DEPENDENCIES = {UID(syntax): ("SimpleITK",) for syntax in COMPRESSED}


def is_available(uid: str) -> bool:
    """Whether the plugin decodes a transfer syntax."""
    return uid in COMPRESSED


def syntax_of(dataset: pydicom.Dataset) -> UID:
    """The transfer syntax of a data set read from a file."""
    meta = getattr(dataset, "file_meta", None)
    said = meta.get("TransferSyntaxUID") if meta is not None else None
    if said:
        return UID(said)
    implicit, little = dataset.original_encoding
    if implicit or implicit is None:
        return UID(ImplicitVRLittleEndian)
    return UID(ExplicitVRLittleEndian if little else ExplicitVRBigEndian)


def check_syntax(dataset: pydicom.Dataset, path: Path) -> None:
    """Refuses a transfer syntax that cannot be decoded.

    Raises
    ------
    DicomError
    """
    syntax = syntax_of(dataset)
    if syntax not in UNCOMPRESSED and syntax not in COMPRESSED:
        name = "an unknown one" if syntax.is_private or syntax.name == syntax else syntax.name
        raise DicomError(
            f"{path}: its transfer syntax (0002,0010) {syntax} ({name}) cannot be decoded; export it as explicit VR "
            "little endian, JPEG Lossless, JPEG-LS, JPEG 2000 or RLE"
        )


def frame_pixels(dataset: pydicom.Dataset, index: int, path: Path) -> NDArray[Any]:
    """The stored values of one frame.

    Parameters
    ----------
    dataset : pydicom.Dataset
        With its pixel data.
    index : int
        Of the frame, from 0.
    path : Path
        For messages.

    Returns
    -------
    ndarray of integers, shape (rows, columns), or (rows, columns, 3) of a colour image in RGB

    Raises
    ------
    DicomError
        No pixel data, an unsupported transfer syntax, or damaged pixels.
    """
    if "PixelData" not in dataset:
        raise DicomError(
            f"{path}: has no pixel data (7fe0,0010): it is a header alone; export the image with its pixels"
        )
    check_syntax(dataset, path)
    plugin = "" if syntax_of(dataset) in UNCOMPRESSED else PLUGIN
    try:
        with quiet_pydicom():
            return np.asarray(pixel_array(dataset, index=index, decoding_plugin=plugin))
    except Exception as error:
        # pydicom and GDCM raise exceptions of many types on damaged pixels.
        reason = " ".join(str(error).split())[:300]
        raise DicomError(f"{path}: pixel data cannot be decoded ({reason}); export it again") from error


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Keeps pydicom's warnings and tracebacks off the terminal: what matters of them is said in an error or a note."""
    logger = logging.getLogger("pydicom")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _decode_frame(src: bytes, runner: DecodeRunner) -> bytes:
    """Decodes one frame for pydicom (pydicom guide "Pixel Data Decoder Plugins")."""
    with _as_file(_wrapped(src, runner)) as name:
        reader = sitk.ImageFileReader()
        reader.SetImageIO("GDCMImageIO")
        reader.SetFileName(name)
        image = reader.Execute()
    values = sitk.GetArrayViewFromImage(image)
    if runner.samples_per_pixel > 1:
        # GDCM gives RGB by pixel, whatever was stored.
        runner.set_option("photometric_interpretation", "RGB")
        runner.set_option("planar_configuration", 0)
    wanted = runner.pixel_dtype
    if values.size != runner.rows * runner.columns * runner.samples_per_pixel:
        raise ValueError(f"{values.shape} pixels in the frame, {runner.rows} x {runner.columns} in the header")
    limits = np.iinfo(wanted)
    if values.min() < limits.min or values.max() > limits.max:
        raise ValueError(f"values from {values.min()} to {values.max()}, where the header says {wanted}")
    return values.astype(wanted).tobytes()


def _wrapped(frame: bytes, runner: DecodeRunner) -> bytes:
    """A DICOM file with one compressed frame and its description alone."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = SecondaryCaptureImageStorage, UID("2.25.1")
    meta.TransferSyntaxUID = runner.transfer_syntax
    d = FileDataset(io.BytesIO(), {}, file_meta=meta, preamble=b"\0" * 128)
    d.SOPClassUID, d.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    d.Rows, d.Columns, d.SamplesPerPixel = runner.rows, runner.columns, runner.samples_per_pixel
    d.PhotometricInterpretation = "MONOCHROME2" if d.SamplesPerPixel == 1 else str(runner.photometric_interpretation)
    d.BitsAllocated, d.BitsStored, d.HighBit = runner.bits_allocated, runner.bits_stored, runner.bits_stored - 1
    d.PixelRepresentation = runner.pixel_representation
    if d.SamplesPerPixel > 1:
        d.PlanarConfiguration = runner.planar_configuration
    d.PixelData = encapsulate([bytes(frame)])
    d["PixelData"].VR = "OB"
    out = io.BytesIO()
    d.save_as(out, enforce_file_format=True)
    return out.getvalue()


@contextmanager
def _as_file(content: bytes) -> Iterator[str]:
    """The name of a file with that content: in memory on Linux, else a temporary one."""
    if hasattr(os, "memfd_create"):
        handle = os.memfd_create("frame")
        try:
            with open(handle, "wb", closefd=False) as file:
                file.write(content)
            yield f"/proc/self/fd/{handle}"
        finally:
            os.close(handle)
    else:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "frame.dcm"
            path.write_bytes(content)
            yield str(path)


def _register() -> None:
    for syntax in COMPRESSED:
        decoder = get_decoder(UID(syntax))
        if PLUGIN not in decoder.available_plugins:
            decoder.add_plugin(PLUGIN, (__name__, "_decode_frame"))


_register()
