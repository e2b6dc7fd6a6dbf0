"""Small scans as hospitals hand them over: a patient of air, soft tissue and bone, as an image and as DICOM."""

import numpy as np
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian, generate_uid

SIZE = (52, 48, 26)  # x, y, z
SPACING = (1.0, 1.0, 2.0)
ORIGIN = (-20.0, -30.0, 40.0)
BONE = (slice(5, 12), slice(10, 20), slice(12, 30))  # z, y, x of the voxels; no mirror image of itself
CORD = (slice(5, 12), slice(22, 26), slice(18, 24))


def patient():
    """A CT in HU: air around soft tissue around a block of bone, off the middle on every axis."""
    hu = np.full(SIZE[::-1], -1000, np.int16)
    hu[2:24, 4:44, 5:47] = 40
    hu[BONE] = 500
    return placed(hu)


def label_map():
    """1: the bone, 2: what lies behind it."""
    labels = np.zeros(SIZE[::-1], np.uint8)
    labels[BONE], labels[CORD] = 1, 2
    return placed(labels)


def placed(voxels, origin=ORIGIN, spacing=SPACING):
    image = sitk.GetImageFromArray(voxels)
    image.SetOrigin(origin)
    image.SetSpacing(spacing)
    return image


def slices(image, intercept=-1024):
    """The image as one DICOM dataset a slice."""
    voxels = sitk.GetArrayFromImage(image)
    series, frame = generate_uid(), generate_uid()
    sx, sy, _ = image.GetSpacing()
    out = []
    for k in range(len(voxels)):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        d = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
        d.SOPClassUID, d.SOPInstanceUID, d.Modality = CTImageStorage, meta.MediaStorageSOPInstanceUID, "CT"
        d.PatientID, d.SeriesInstanceUID, d.FrameOfReferenceUID = "scan", series, frame
        d.Rows, d.Columns, d.SamplesPerPixel, d.PhotometricInterpretation = *voxels.shape[1:], 1, "MONOCHROME2"
        d.BitsAllocated, d.BitsStored, d.HighBit, d.PixelRepresentation = 16, 16, 15, 0
        d.PixelSpacing, d.ImageOrientationPatient = [sy, sx], [1, 0, 0, 0, 1, 0]
        d.ImagePositionPatient = list(image.TransformIndexToPhysicalPoint((0, 0, k)))
        d.RescaleSlope, d.RescaleIntercept = 1, intercept
        d.PixelData = (voxels[k].astype(np.int32) - intercept).astype("<u2").tobytes()
        out.append(d)
    return out


def save(datasets, folder):
    folder.mkdir(parents=True, exist_ok=True)
    for k, d in enumerate(datasets):
        d.save_as(folder / f"{k:04}.dcm", enforce_file_format=True)
    return folder


def one_item(**tags):
    item = Dataset()
    for name, value in tags.items():
        setattr(item, name, value)
    return Sequence([item])


def enhanced(single, order=None, sop_class=EnhancedCTImageStorage, modality="CT"):
    """The single slices as one multi-frame object with functional groups; frames in any order."""
    single = [single[k] for k in (order if order is not None else range(len(single)))]
    e = single[0].copy()
    e.file_meta.MediaStorageSOPClassUID = e.SOPClassUID = sop_class
    e.Modality, e.NumberOfFrames = modality, len(single)
    e.PixelData = b"".join(s.PixelData for s in single)
    shared = Dataset()
    shared.PixelMeasuresSequence = one_item(PixelSpacing=single[0].PixelSpacing)
    shared.PlaneOrientationSequence = one_item(ImageOrientationPatient=single[0].ImageOrientationPatient)
    e.SharedFunctionalGroupsSequence = Sequence([shared])
    frames = []
    for s in single:
        frame = Dataset()
        frame.PlanePositionSequence = one_item(ImagePositionPatient=s.ImagePositionPatient)
        frame.PixelValueTransformationSequence = one_item(
            RescaleSlope=s.RescaleSlope, RescaleIntercept=s.RescaleIntercept, RescaleType="HU"
        )
        frames.append(frame)
    e.PerFrameFunctionalGroupsSequence = Sequence(frames)
    for tag in (
        "PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient", "RescaleSlope", "RescaleIntercept",
    ):  # fmt: skip
        delattr(e, tag)
    return e
