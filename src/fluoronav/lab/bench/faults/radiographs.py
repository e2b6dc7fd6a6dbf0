"""Radiographs for `fluoronav register`: their polarity, and the options that its errors name."""

from __future__ import annotations

import json
import re
from pathlib import Path

import cv2
import numpy as np
import yaml
from numpy.typing import NDArray
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian, generate_uid

from fluoronav.case import load_case
from fluoronav.geometry import Camera, inverse, moved_about
from fluoronav.lab.bench.faults.command import fluoronav, refused_with
from fluoronav.lab.bench.faults.place import Place
from fluoronav.lab.bench.faults.row import Fault, Outcome
from fluoronav.lab.bench.faults.scans import crop, save, slices
from fluoronav.lab.simulation.flat_panel import FlatPanel, ImageChain
from fluoronav.lab.simulation.sequence import Anatomy
from fluoronav.lab.target_error import target_error_mm
from fluoronav.paths import embedded_case

Float = NDArray[np.float64]

# The image is cut from the middle of the round field: the field edge would tell the polarity, but the header has to.
_SIDE, _FIELD_SIDE = 256, 448
_FOCAL_PX = 1000 / 300 * _SIDE
# Photons per pixel: those of sixteen pixels of a 1024 image.
_PHOTONS = 16 * 80.0
_FULL_12_BIT, _LOG_GAIN = 4095, 4000.0  # of a logarithmic detector
# Offset of the start (degrees, mm, camera axes), and the allowed error across the ray, mm; chosen.
_START_DEG, _START_MM, _WITHIN_MM = (1.0, -1.5, 1.0), (2.0, -2.0, 3.0), 1.0


def _bone_white_cr(place: Place) -> Outcome:
    """A MONOCHROME2 CR without PixelIntensityRelationshipSign, whose values fall with the exposure."""
    folder = place.folder()
    case = load_case("embedded")
    isocentre = np.array(case.prior.isocentre_ct)
    camera = Camera(_FIELD_SIDE, _FIELD_SIDE, _K(_FIELD_SIDE))
    truth = np.eye(4)
    truth[:3, :3] = [[1, 0, 0], [0, 0, -1], [0, 1, 0]]
    truth[:3, 3] = [0, 0, case.prior.source_to_isocentre_mm] - truth[:3, :3] @ isocentre
    anatomy = Anatomy(case, camera)
    beam = anatomy.transmission(*anatomy.paths(truth))
    field = ImageChain(FlatPanel(photons=_PHOTONS), _FIELD_SIDE, _FIELD_SIDE, 3).counts(beam, 1)
    margin = (_FIELD_SIDE - _SIDE) // 2
    counts = field[margin:-margin, margin:-margin].astype(np.float64) / 65535
    exposure = np.log1p(counts * _LOG_GAIN) / np.log1p(_LOG_GAIN)
    _write_cr(folder / "cr.dcm", np.rint((1 - exposure) * _FULL_12_BIT))
    turn = [*np.deg2rad(_START_DEG), *_START_MM]
    start = inverse(moved_about(isocentre, turn) @ inverse(truth))
    (folder / "init.json").write_text(json.dumps({"T_camera_ct": start.tolist()}))
    ended = fluoronav(
        "register", "--volume", embedded_case().parent / "ct.nrrd", "--image", "cr.dcm", "--camera",
        _write_camera(folder), "--init", "init.json", "--json", "pose.json", folder=folder,
    )  # fmt: skip
    if ended.code != 0 or not (folder / "pose.json").exists():
        return Outcome([f"no pose: {ended.last}"])
    result = json.loads((folder / "pose.json").read_text())
    view = result["views"][0]
    off, _ = target_error_mm(view["T_camera_ct"], truth, isocentre)
    outcome = Outcome(seen=f"taken as {view['polarity']}, {off:.2f} mm off across the ray")
    if view["polarity"] != "inverse":
        outcome.problems.append("taken upside down")
    if not result["accepted"]:
        outcome.problems.append(f"not accepted: {result['reason']}")
    if off > _WITHIN_MM:
        outcome.problems.append("its pose is wrong")
    return outcome


def _options_exist(place: Place) -> Outcome:
    """A folder of two series: the option that the error names selects one."""
    folder = place.folder()
    one, other = slices(crop("ct")), slices(crop("ct"))
    save(one, folder / "ct", prefix="a")
    save(other, folder / "ct", prefix="b")
    x = np.linspace(0.2, 0.8, _SIDE)
    cv2.imwrite(str(folder / "frame.png"), np.rint(65535 * np.outer(x, x)).astype(np.uint16))
    command = (
        "register", "--volume", "ct", "--image", "frame.png", "--camera", _write_camera(folder), "--json", "pose.json",
    )  # fmt: skip
    ended = fluoronav(*command, folder=folder)
    outcome = refused_with(ended, "2 series", "--series")
    help = fluoronav("register", "--help", folder=folder).text
    unknown = {option for option in re.findall(r"--[a-z][a-z-]+", ended.text) if option not in help}
    if unknown:
        outcome.problems.append(f"it has no {', '.join(sorted(unknown))}")
    # It comes to the next error: no start.
    chosen = fluoronav(*command, "--series", one[0].SeriesInstanceUID, folder=folder)
    if "2 series" in chosen.text or "--init" not in chosen.text:
        outcome.problems.append(f"--series is not obeyed: {chosen.last}")
    return outcome


def _K(side: int) -> Float:
    middle = (side - 1) / 2
    return np.array([[_FOCAL_PX, 0, middle], [0, _FOCAL_PX, middle], [0, 0, 1]])


def _write_camera(folder: Path) -> str:
    (folder / "camera.yaml").write_text(yaml.safe_dump({"rows": _SIDE, "cols": _SIDE, "K": _K(_SIDE).tolist()}))
    return "camera.yaml"


def _write_cr(path: Path, stored: Float) -> None:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = ComputedRadiographyImageStorage, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    d = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    values = {
        "SOPClassUID": ComputedRadiographyImageStorage, "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
        "Modality": "CR", "Rows": stored.shape[0], "Columns": stored.shape[1], "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2", "BitsAllocated": 16, "BitsStored": 12, "HighBit": 11,
        "PixelRepresentation": 0, "PixelData": stored.astype("<u2").tobytes(),
    }  # fmt: skip
    for name, value in values.items():
        setattr(d, name, value)
    d.save_as(path, enforce_file_format=True)


FAULTS = (
    Fault("bone-white-cr", "taken the right way up: the pose is found", _bone_white_cr),
    Fault("register-options-exist", "the option that the error names exists and is obeyed", _options_exist),
)
