"""A small patient with a CT, a recorded run and an overlay, and every object that is made of them."""

import datetime
import re
import subprocess

import numpy as np
import SimpleITK as sitk
from tests.case.scans import label_map, patient, slices

from fluoronav.dicom.objects import (
    Acquisition,
    Approval,
    Finding,
    Measurement,
    Producer,
    Provenance,
    Segment,
    alert_findings,
    encapsulated_pdf,
    encapsulated_stl,
    graphics_in,
    graphics_of,
    key_object_selection,
    measurement_report,
    presentation_state,
    registration_finding,
    secondary_capture,
    segmentation,
    source_of,
    spatial_registration,
    stl_bytes,
    xray_run,
)
from fluoronav.dicom.objects.modules import decimal

MADE = datetime.datetime(2026, 1, 2, 3, 4, 5)
MODELS = {"instruments": "a" * 64}
DRAFT = Provenance(Producer(models=MODELS), MADE)
ACCEPTED = Provenance(Producer(models=MODELS), MADE, Approval("Weiss^Eva", "Hospital", MADE))
SEGMENTS = [Segment("vertebrae_T8", 1, "#ff0000"), Segment("spinal_cord", 2, "#00ff00")]
PDF = b"%PDF-1.4\n1 0 obj\nendobj\n%%EOF\n"
COUNTS = np.random.default_rng(1).integers(200, 4000, (4, 200, 240)).astype(np.uint16)
OVERLAY = {
    "seq": 11,
    "outlines": [{"structure": "aorta", "color": "#ec7063", "paths": [[[10, 10], [50, 10], [50.5, 60.25]]]}],
    "plan": [
        {
            "trajectory": "T8_left", "entry_px": [5, 5], "target_px": [100, 90], "angle_deg": 3.0, "lateral_mm": 1.0,
            "depth_left_mm": 12.0,
        }
    ],
    "instruments": [
        {
            "id": "kwire", "kind": "k-wire", "tip_px": [120, 130.5], "tail_px": [400, 130.5], "tip_ct": [1, 2, 3],
            "axis_ct": [0, 0, 1], "sigma_mm": 0.5, "origin": "fused", "age": 0,
        }
    ],
    "distances": [
        {
            "instrument": "kwire", "structure": name, "distance_mm": mm, "lower_mm": mm - 1.3, "nearest_ct": [1, 2, 3],
            "level": level,
        }
        for name, mm, level in (("aorta", 2.3, "danger"), ("spinal_cord", 9.0, "clear"))
    ],
    "models": MODELS,
}  # fmt: skip
T = 1_800_000_000_000_000_000
ALERTS = [
    {
        "v": 1, "source": "carm0", "instance": "i", "id": "proximity/kwire/aorta", "state": state, "seq": 11 + k,
        "t_acq": T + k * 2_500_000_000, "t_raised": T, "priority": "high", "kind": "proximity", "instrument": "kwire",
        "structure": "aorta", "distance_mm": 2.3, "lower_mm": 1.0, "threshold_mm": 3.0, "text": "2.3 mm from the aorta",
    }
    for k, state in enumerate(("raised", "acknowledged", "cleared"))
]  # fmt: skip
REGISTRATION = {
    "T_camera_ct": [1, 0, 0, 1 / 3, 0, 1, 0, 2.123456789123, 0, 0, 1, 620, 0, 0, 0, 1],
    "score": 0.83, "sigma": [0.1] * 6, "tre_mm": 1.2, "tre_image_mm": 0.4, "age": 0, "accepted": True,
}  # fmt: skip
PERSON = {
    "PatientID": "P1", "PatientName": "Roe^Jane", "PatientSex": "F", "PatientBirthDate": "19600101",
    "StudyInstanceUID": "1.2.3.4", "StudyDate": "20260101", "StudyTime": "101010", "AccessionNumber": "A7",
    "StudyDescription": "Spine", "ReferringPhysicianName": "Doe^John", "StudyID": "S",
}  # fmt: skip


def ct(image=None, **tags):
    """The headers of a CT series of a patient, with UIDs that do not change from one call to the next."""
    image = image if image is not None else patient()
    out = slices(image)
    direction = np.array(image.GetDirection()).reshape(3, 3)
    for k, d in enumerate(out):
        d.ImageOrientationPatient = [decimal(v) for v in [*direction[:, 0], *direction[:, 1]]]
        d.ImagePositionPatient = [decimal(v) for v in image.TransformIndexToPhysicalPoint((0, 0, k))]
        for keyword, value in {**PERSON, **tags}.items():
            setattr(d, keyword, value)
        d.SOPInstanceUID = d.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.4.5.{k + 1}"
        d.SeriesInstanceUID, d.FrameOfReferenceUID, d.InstanceNumber = "1.2.3.4.5", "1.2.3.4.6", k + 1
        d.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    return out


def recorded(provenance=DRAFT, source=None):
    acquisition = Acquisition(
        bits=12, times_ms=(0, 33.3, 66.7, 100), sdd_mm=1000, sid_mm=620, pixel_mm=(0.3, 0.3),
        primary_deg=(0, 1, 2, 3), secondary_deg=(0, 0, 0, 0), kv=70, ma=3.2, pulse_ms=8,
    )  # fmt: skip
    return xray_run(source or source_of(ct(), "ct"), provenance, COUNTS, acquisition)


def findings(segment=None):
    bone = Finding("vertebrae_T8", (Measurement("volume_ml", 2.52),), structure="vertebrae_T8", segment=segment)
    return [bone, *alert_findings(ALERTS), registration_finding(REGISTRATION, "spine")]


def every_object(provenance=DRAFT, **tags):
    """Every kind of object of one patient, by name."""
    source = source_of(ct(**tags), "ct")
    out = {
        "seg": segmentation(source, provenance, label_map(), SEGMENTS),
        "labelmap": segmentation(source, provenance, label_map(), SEGMENTS, encoding="LABELMAP"),
        "xa": recorded(provenance, source),
    }
    image = source_of([out["xa"]], "run")
    out["gsps"] = presentation_state(image, provenance, graphics_of(OVERLAY), frame=2)
    out["sc"] = secondary_capture(image, provenance, COUNTS[1], graphics_in(out["gsps"], 2), frame=2)
    corners = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1.0]])
    tetrahedron = stl_bytes(corners, np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]]))
    out["stl"] = encapsulated_stl(source, provenance, tetrahedron, "aorta")
    out["pdf"] = encapsulated_pdf(source, provenance, PDF, "Briefing")
    if provenance.approval is not None:
        out["reg"] = spatial_registration(source, image, provenance, REGISTRATION["T_camera_ct"], frame=2)
    out["ko"] = key_object_selection([image], provenance, frames={image.instance_uids[0]: [2, 3]}, note="Wire in place")
    out["sr"] = measurement_report(source, provenance, findings(1), references=[image], segmentation=out["seg"])
    return out


def oriented(image, permutation, flips):
    """The same volume with its axes permuted and flipped: every voxel stays where it is in the patient."""
    return sitk.Flip(sitk.PermuteAxes(image, [int(p) for p in permutation]), [bool(f) for f in flips], False)


def errors_of(path):
    """What dciodvfy finds wrong in a file."""
    done = subprocess.run(["dciodvfy", "-new", str(path)], capture_output=True, text=True)
    lines = (done.stdout + done.stderr).splitlines()
    return [re.sub(r"<[^>]*>", "", line) for line in lines if line.startswith("Error")]


def dumped(path):
    """The text that dsrdump prints of a report."""
    return subprocess.run(["dsrdump", "+Pl", "+U8", str(path)], capture_output=True, text=True, check=True).stdout
