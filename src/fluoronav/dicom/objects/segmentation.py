"""Segmentations (SEG): a label map on the grid of a CT, as DICOM (PS3.3 A.51, A.85)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import highdicom as hd
import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, JPEGLSLossless

from fluoronav.dicom.errors import DicomError
from fluoronav.dicom.objects.anatomy import anatomy_of
from fluoronav.dicom.objects.label_grid import Planes, on_planes, planes_of
from fluoronav.dicom.objects.modules import decimal, finished, identity, stand_ins
from fluoronav.dicom.objects.provenance import Provenance, coded, digest_of, uid_of
from fluoronav.dicom.objects.source import Source

Encoding = Literal["BINARY", "LABELMAP"]
_MOST_LABEL = 65_535  # largest value of a label map
_MOST_SEGMENTS = 65_535  # SegmentNumber has VR US


@dataclass(frozen=True)
class Segment:
    """One structure of a label map.

    Attributes
    ----------
    name : str
        As in the case; the codes follow from it.
    label : int
        Its value in the label map.
    color : str
        ``#rrggbb``.
    algorithm : str
        What drew it: a name for the software or network; empty where a person did.
    """

    name: str
    label: int
    color: str = "#ffffff"
    algorithm: str = "fluoronav"


def segmentation(
    source: Source,
    provenance: Provenance,
    labels: sitk.Image,
    segments: Sequence[Segment],
    *,
    encoding: Encoding = "BINARY",
) -> Dataset:
    """A segmentation object.

    Segments are numbered from 1 in their order. Values of the label map that no segment names are left out.

    Parameters
    ----------
    source : Source
        The series (or multi-frame object) that was segmented.
    provenance : Provenance
    labels : SimpleITK.Image
        Whole numbers, on the grid of the source; its voxels may be flipped, permuted or cropped against it.
    segments : sequence of Segment
    encoding : {"BINARY", "LABELMAP"}
        BINARY: one bit a voxel for each segment, which every archive and viewer takes. LABELMAP: one number a voxel,
        JPEG-LS, a fiftieth of the size; Supplement 243 of 2024.

    Raises
    ------
    DicomError
        Labels on another grid, outside the series, or not whole; no segment; two segments with one label.
    """
    if not segments:
        raise DicomError(f"{source.name}: no structure to write; the case has none, or --structure names none of them")
    numbers = [s.label for s in segments]
    if len(set(numbers)) < len(numbers) or len(numbers) > _MOST_SEGMENTS:
        raise DicomError(f"{source.name}: two structures have the same label; every segment needs its own")
    grid = planes_of(source)
    planes = _numbered(on_planes(_chosen(labels, numbers, source.name), grid, source.name), numbers)
    content = [f"{s.name} {s.label} {s.color} {s.algorithm}" for s in segments]
    ids = identity(
        "SEG", source, provenance, digest_of(encoding, *content, str(planes.shape), np.ascontiguousarray(planes))
    )
    producer = provenance.producer
    out = hd.seg.Segmentation(
        source_images=_with_thickness(stand_ins(source), grid),
        pixel_array=planes,
        segmentation_type=encoding,
        segment_descriptions=[_description(k + 1, s, provenance, ids.instance_uid) for k, s in enumerate(segments)],
        series_instance_uid=ids.series_uid,
        series_number=ids.series_number,
        sop_instance_uid=ids.instance_uid,
        instance_number=1,
        manufacturer=producer.manufacturer,
        manufacturer_model_name=producer.model,
        software_versions=producer.software[0],
        device_serial_number=producer.serial,
        content_label=provenance.content_label("SEGMENTATION"),
        content_description=provenance.labelled(f"{len(segments)} structures"),
        transfer_syntax_uid=JPEGLSLossless if encoding == "LABELMAP" else ExplicitVRLittleEndian,
        omit_empty_frames=encoding == "BINARY",
    )
    _fix_dimension_uid(out, ids.instance_uid)
    return finished(out, source, provenance, "Segmentation")


def _with_thickness(images: list[Dataset], planes: Planes) -> list[Dataset]:
    """Images that all say SliceThickness (0018,0050): the distance between planes where it is missing or empty."""
    steps = np.linalg.norm(np.diff(planes.positions_ct, axis=0), axis=1)
    thickness = float(np.median(steps)) if len(steps) else float(np.linalg.norm(planes.right_ct))
    for image in images:
        if image.get("SliceThickness") in (None, ""):
            image.SliceThickness = decimal(thickness)
    return images


def _chosen(labels: sitk.Image, numbers: Sequence[int], name: str) -> sitk.Image:
    """The label map as unsigned whole numbers, with 0 for labels that are not among the numbers."""
    voxels = sitk.GetArrayViewFromImage(labels)
    low, high = voxels.min(), voxels.max()
    if low < 0 or high > _MOST_LABEL or max(numbers) > _MOST_LABEL:
        raise DicomError(f"{name}: the label map reaches from {low:g} to {high:g}; labels are 0 to {_MOST_LABEL}")
    if voxels.dtype.kind == "f" and (voxels != np.rint(voxels)).any():
        raise DicomError(f"{name}: the label map has values that are not whole numbers")
    table = np.zeros(max(int(high), *numbers) + 1, np.uint16)
    table[list(numbers)] = numbers
    chosen = sitk.GetImageFromArray(table[voxels.astype(np.uint16, copy=False)])
    chosen.CopyInformation(labels)
    return chosen


def _numbered(planes: NDArray[np.integer], numbers: Sequence[int]) -> NDArray[np.integer]:
    """Labels replaced by the numbers of their segments, from 1."""
    table = np.zeros(max(int(planes.max()), *numbers) + 1, np.uint8 if len(numbers) < 256 else np.uint16)
    table[list(numbers)] = np.arange(1, len(numbers) + 1)
    return table[planes]


def _description(number: int, segment: Segment, provenance: Provenance, uid: str) -> hd.seg.SegmentDescription:
    anatomy = anatomy_of(segment.name)
    algorithm = None
    if segment.algorithm:
        algorithm = hd.AlgorithmIdentificationSequence(
            name=segment.algorithm,
            family=hd.sr.CodedConcept("123110", "DCM", "Artificial Intelligence"),
            version=provenance.producer.models.get(segment.algorithm, provenance.producer.software[0]),
        )
    out = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=segment.name[:64],
        segmented_property_category=anatomy.category,
        segmented_property_type=anatomy.type,
        algorithm_type="AUTOMATIC" if segment.algorithm else "MANUAL",
        algorithm_identification=algorithm,
        tracking_uid=uid_of("segment", uid, segment.name),
        tracking_id=segment.name[:64],
        display_color=lab(segment.color),
    )
    if anatomy.side is not None:
        out.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [coded(anatomy.side)]
    return out


def lab(color: str) -> hd.color.CIELabColor:
    """``#rrggbb`` as CIELab."""
    return hd.color.CIELabColor.from_rgb(*(int(color[k : k + 2], 16) for k in (1, 3, 5)))


def _fix_dimension_uid(out: Dataset, instance_uid: str) -> None:
    """Replaces the dimension organization's UID, which is random, by one that follows from the object."""
    uid = uid_of("dimensions", instance_uid)
    for item in (*out.get("DimensionOrganizationSequence", ()), *out.get("DimensionIndexSequence", ())):
        item.DimensionOrganizationUID = uid
