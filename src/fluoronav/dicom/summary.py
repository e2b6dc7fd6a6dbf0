"""What fluoronav reads in a DICOM file, a folder or a medium, and what it refuses and why, for `fluoronav dicom show`.

Nothing that names the patient is in it: no names, IDs, dates or descriptions. Headers alone are read.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.uid import UID

from fluoronav.dicom.decoding import LOSSY, UNCOMPRESSED, check_syntax, syntax_of
from fluoronav.dicom.errors import DicomError
from fluoronav.dicom.reading import UNREADABLE, read_dataset
from fluoronav.dicom.series import find_series, is_directory_of_medium
from fluoronav.dicom.slices import DicomFile, is_xray_volume, sop_class
from fluoronav.dicom.stack import stack_of
from fluoronav.dicom.xray_geometry import read_geometry
from fluoronav.dicom.xray_header import MODALITIES, XrayHeader
from fluoronav.dicom.xray_intensity import read_relationship
from fluoronav.dicom.xray_readout import read_readout
from fluoronav.dicom.xray_shutters import read_shutters
from fluoronav.geometry.grid import GridError

_IDENTITY = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
_AXES = (("right", "left"), ("front", "back"), ("feet", "head"))  # of LPS, negative and positive


def summarise(path: Path, frame: int = 1) -> dict[str, Any]:
    """What a file, a folder (without its sub-folders) or a DICOMDIR holds.

    Parameters
    ----------
    path : Path
    frame : int
        Of X-ray images of several frames, from 1.

    Returns
    -------
    dict
        ``series``: list, one for each series of slices; ``images``: list, one for each X-ray image or picture;
        ``notes``: what was not read. What cannot be used has ``refused``, the reason in words. Ready for JSON.

    Raises
    ------
    DicomError
        No DICOM, or nothing with an image.
    """
    if path.is_dir() or is_directory_of_medium(path):
        found = find_series(path)
        series = [_series(files, path) for files in found.series.values()]
        images = [_image(file.path, file.header, frame, []) for file in found.images]
        if not series and not images:
            raise DicomError(f"{path}: holds no DICOM images{''.join(f'. {n}' for n in found.notes)}")
        return {"path": str(path), "series": series, "images": images, "notes": list(found.notes)}
    notes: list[str] = []
    try:
        header = read_dataset(path, with_pixels=False, notes=notes)
    except DicomError:
        raise
    except UNREADABLE as error:
        raise DicomError(f"{path}: is no DICOM file, or its header is damaged ({type(error).__name__})") from error
    if "Rows" not in header or "Columns" not in header:
        raise DicomError(f"{path}: is {_class_name(header)} without an image (Rows (0028,0010), Columns (0028,0011))")
    file = DicomFile(header, path)
    is_xray = str(header.get("Modality")) in MODALITIES and not is_xray_volume(header)
    if file.is_placed and not is_xray:
        return {"path": str(path), "series": [_series([file], path)], "images": [], "notes": notes}
    return {"path": str(path), "series": [], "images": [_image(path, header, frame, notes)], "notes": []}


def _series(files: list[DicomFile], where: Path) -> dict[str, Any]:
    first = files[0].header
    found: dict[str, Any] = {
        "kind": _class_name(first),
        "modality": str(first.get("Modality") or ""),
        "series_uid": str(first.get("SeriesInstanceUID") or ""),
        "files": len(files),
        "slices": sum(file.frames for file in files),
        "transfer_syntaxes": sorted({syntax_of(file.header).name for file in files}),
        "missing": _missing(first),
        "notes": [],
    }
    try:
        for file in files:
            check_syntax(file.header, file.path)
        stack = stack_of(files, where, ("CT", "MR"))
    except (DicomError, GridError) as error:
        return {**found, "refused": str(error)}
    rows, cols = stack.grid.size[1], stack.grid.size[0]
    return {
        **found,
        "size": [cols, rows, stack.grid.size[2]],
        "spacing_mm": np.round(stack.grid.spacing_mm, 4).tolist(),
        "origin_ct": np.round(stack.grid.origin_ct, 3).tolist(),
        "directions": [_direction(stack.grid.direction[:, k]) for k in range(3)],
        "values": "intensities of MR" if found["modality"] == "MR" else "HU",
        "notes": list(stack.notes),
        "refused": None if found["modality"] != "MR" else "a case and `fluoronav register` need a CT in HU",
    }


def _image(path: Path, header: pydicom.Dataset, frame: int, notes: list[str]) -> dict[str, Any]:
    xray = XrayHeader(path, header, frame)
    syntax = syntax_of(header)
    found: dict[str, Any] = {
        "file": path.name,
        "kind": _class_name(header),
        "modality": xray.word("Modality"),
        "transfer_syntax": {
            "uid": str(syntax),
            "name": syntax.name,
            "compressed": syntax not in UNCOMPRESSED,
            "lossy": syntax in LOSSY or xray.word("LossyImageCompression") == "01",
        },
        "missing": _missing(header),
        "notes": list(notes),
    }
    for keyword, key in (("Rows", "rows"), ("Columns", "columns"), ("BitsStored", "bits_stored")):
        found[key] = header.get(keyword)
    try:
        found["frames"] = xray.frames
        xray.check_pixels()
        check_syntax(header, path)
    except DicomError as error:
        return {**found, "refused": str(error)}
    found["frame"] = frame
    for key, read in (("geometry", _geometry), ("intensity", _intensity), ("field", _field)):
        found[key] = _or_refused(read, xray)
    refused = [found[key]["refused"] for key in ("intensity", "field") if "refused" in found[key]]
    return {**found, "refused": refused[0] if refused else None}


def _or_refused(read: Callable[[XrayHeader], dict[str, Any]], header: XrayHeader) -> dict[str, Any]:
    try:
        return read(header)
    except DicomError as error:
        return {"refused": str(error)}


def _geometry(header: XrayHeader) -> dict[str, Any]:
    geometry = read_geometry(header)
    K, T = geometry.camera.K, geometry.T_camera_isocentre
    return {
        "spacing_mm": [geometry.spacing.down_mm, geometry.spacing.right_mm],
        "spacing_source": geometry.spacing.source,
        "source_to_detector_mm": header.number("DistanceSourceToDetector"),
        "source_to_isocentre_mm": float(T[2, 3]),
        "primary_deg": geometry.angles.primary_deg,
        "secondary_deg": geometry.angles.secondary_deg,
        "angles_source": geometry.angles.source,
        "isocentre_px": [float(K[0, 2]), float(K[1, 2])],
        "isocentre_source": geometry.isocentre_source,
        "mirrored": geometry.mirrored,
        "notes": list(geometry.notes),
    }


def _intensity(header: XrayHeader) -> dict[str, Any]:
    sign = header.number("PixelIntensityRelationshipSign")
    if header.is_picture:
        return {"relationship": "", "sign": None, "response": None, "source": "a picture: nothing says it"}
    relationship = read_relationship(header)
    return {
        "relationship": relationship.said,
        "sign": None if sign is None else int(sign),
        "response": relationship.response,
        "source": relationship.source,
    }


def _field(header: XrayHeader) -> dict[str, Any]:
    shutters = read_shutters(header)
    return {
        "readout": None if (readout := read_readout(header)).is_plain else str(readout),
        "shutters": list(shutters.shapes),
        "seen": 1.0 if shutters.mask is None else round(float(shutters.mask.mean()), 4),
        "notes": list(shutters.notes),
    }


def _missing(header: pydicom.Dataset) -> list[str]:
    return [keyword for keyword in _IDENTITY if not header.get(keyword)]


def _class_name(header: pydicom.Dataset) -> str:
    uid = UID(sop_class(header))
    return uid.name.removesuffix(" Storage") if uid else "an object without a SOP class"


def _direction(axis: Any) -> str:
    """Where an axis of the volume points in the patient: its largest component."""
    k = int(np.abs(axis).argmax())
    oblique = "" if abs(axis[k]) > 0.999 else " (oblique)"
    return _AXES[k][int(axis[k] > 0)] + oblique


def as_lines(summary: dict[str, Any]) -> list[str]:
    """A summary in words, a line each."""
    lines = [summary["path"]]
    for found in summary["series"]:
        lines += [f"  {line}" for line in _series_lines(found)]
    for found in summary["images"]:
        lines += [f"  {line}" for line in _image_lines(found)]
    return lines + [f"  note: {note}" for note in summary["notes"]]


def _series_lines(found: dict[str, Any]) -> list[str]:
    lines = [
        f"{found['kind']}, {found['slices']} slices in {found['files']} files: "
        f"series {found['series_uid'] or 'without a UID'}"
    ]
    if "size" in found:
        size, spacing = (" x ".join(f"{v:g}" for v in found[key]) for key in ("size", "spacing_mm"))
        lines.append(f"  volume: {size} voxels of {spacing} mm, {found['values']}")
        lines.append(f"  columns, rows and slices go to the patient's {', '.join(found['directions'])}")
    lines.append(f"  transfer syntax: {', '.join(found['transfer_syntaxes'])}")
    return lines + _rest_lines(found)


def _image_lines(found: dict[str, Any]) -> list[str]:
    syntax = found["transfer_syntax"]
    lines = [
        f"{found['kind']} ({found['modality'] or 'no modality'}): {found['file']}",
        f"  {found['rows']} x {found['columns']} pixels of {found['bits_stored']} bits, "
        f"{found.get('frames', 'unknown')} frames",
        f"  transfer syntax: {syntax['name']}{', with loss' if syntax['lossy'] else ''}",
    ]
    if "geometry" in found:
        lines += [*_geometry_lines(found["geometry"]), *_intensity_lines(found), *_field_lines(found["field"])]
    return lines + _rest_lines(found)


def _geometry_lines(geometry: dict[str, Any]) -> list[str]:
    if "refused" in geometry:
        return [f"  geometry: none: {geometry['refused']}"]
    down, right = geometry["spacing_mm"]
    return [
        f"  pixels at the detector: {down:.4g} mm high, {right:.4g} mm wide, from {geometry['spacing_source']}",
        f"  source to detector {geometry['source_to_detector_mm']:g} mm, to isocentre "
        f"{geometry['source_to_isocentre_mm']:g} mm",
        f"  angles: primary {geometry['primary_deg']:g}, secondary {geometry['secondary_deg']:g} degrees, from "
        f"{geometry['angles_source']}",
        f"  isocentre at column {geometry['isocentre_px'][0]:.1f} and row {geometry['isocentre_px'][1]:.1f}, from "
        f"{geometry['isocentre_source']}; {'mirrored' if geometry['mirrored'] else 'not mirrored'} for the source",
        *(f"  note: {note}" for note in geometry["notes"]),
    ]


def _intensity_lines(found: dict[str, Any]) -> list[str]:
    intensity = found["intensity"]
    if "refused" in intensity:
        return []  # said as the reason why the image is refused
    said = intensity["relationship"] or "not said"
    sign = {1: "rises with the X-rays", -1: "falls with the X-rays", None: "sign not said"}.get(intensity["sign"])
    response = f"taken as {intensity['response']}, " if intensity["response"] else ""
    return [f"  intensity: {said}, {sign or 'sign invalid'}; {response}from {intensity['source']}"]


def _field_lines(field: dict[str, Any]) -> list[str]:
    if "refused" in field:
        return []
    lines = [f"  after readout: {field['readout']}"] if field["readout"] else []
    shutters = (
        f"{'; '.join(field['shutters'])}: {100 * field['seen']:.0f} % seen" if field["shutters"] else "no shutters"
    )
    return [*lines, f"  field of view: {shutters}", *(f"  note: {note}" for note in field["notes"])]


def _rest_lines(found: dict[str, Any]) -> list[str]:
    lines = [f"  missing: {', '.join(found['missing'])}"] if found["missing"] else []
    lines += [f"  note: {note}" for note in found["notes"]]
    return [*lines, f"  REFUSED: {found['refused']}"] if found["refused"] else lines
