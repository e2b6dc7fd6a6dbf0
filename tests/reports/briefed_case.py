"""The embedded case with proposed screws, views and flags, to write documents of."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk
import yaml
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from tests.planning.planned_case import planned_case

from fluoronav.case.hashes import volume_hash
from fluoronav.case.volume import read_volume
from fluoronav.cli import main
from fluoronav.planning.plan.file import read_plan
from fluoronav.planning.plan.revisions import PlanRevisions
from fluoronav.planning.plan.schema import Cut, Flag, Implant, Measured, Path, Resection, View
from fluoronav.planning.questions import write_questions
from fluoronav.site.case_trail import CaseTrail

# Of the DICOM series; none of it may be in a document.
WHO = {
    "PatientName": "Zimmerfrau^Zoe", "PatientID": "ZZ-471199", "PatientBirthDate": "19510203",
    "AccessionNumber": "ACC-8877", "ReferringPhysicianName": "Quacksalber^Quirin",
    "InstitutionName": "Haus Sonnenblick", "StudyDescription": "Zoe's spine",
}  # fmt: skip
LEFT_VIEWS = ((0.0, 40.0), (70.0, -20.0))  # the first is guided in
RIGHT_VIEW = (12.0, -4.0)
POOR_BONE = "trabecular bone of T8 has 84 HU & less than <110>"


def view(item, k, angles, error_mm=0.31, bound_mm=0.47):
    return View(
        id=f"{item}-view-{k}", origin="proposed", audit="3", item=item, orbital_deg=angles[0], angular_deg=angles[1],
        error_mm=error_mm, bound_mm=bound_mm,
    )  # fmt: skip


MEASURED = (
    Measured(
        id="m-1", origin="proposed", name="pedicle_left_width", structure="vertebrae_T8", value=7.684, unit="mm",
        uncertainty=0.39, method="calipers",
    ),
    Measured(
        id="m-2", origin="proposed", name="kyphosis", structure="T6-T10", value=31.26, unit="deg", method="Cobb",
    ),
    Measured(id="m-3", origin="proposed", name="volume", structure="liver", value=900, unit="cm3", method="voxels"),
)  # fmt: skip
FLAG = Flag(id="flag-poor-bone", origin="proposed", what="poor-bone", text=POOR_BONE, structure="vertebrae_T8")
OTHERS = (
    Path(
        id="wire", origin="drawn", name="k-wire", entry_ct=(20.0, 105.0, -158.0), target_ct=(10.0, 75.0, -158.0),
        diameter_mm=1.5,
    ),
    Cut(
        id="cut-1", origin="drawn", structure="vertebrae_T9", point_ct=(0, 80, -180), normal_ct=(0, 0, 1), kerf_mm=1.2,
        wedge_to="cut-2",
    ),
    Cut(
        id="cut-2", origin="drawn", structure="vertebrae_T9", point_ct=(0, 80, -190), kerf_mm=1.2,
        normal_ct=(0, 0.5, -0.75**0.5),
    ),
    Resection(id="resection-1", origin="drawn", lesion="aorta", margin_mm=5.0),
    Implant(id="rod-1", origin="drawn", family="demo-rod", size="60", T_ct_implant=np.eye(4).tolist()),
)  # fmt: skip


def briefed_case(folder, *, approve=True, acknowledge=True, views=True, more=(), dicom=False):
    """Writes the case; its plan has the screws of T8 and T9 as `plan screws` proposes them."""
    planned_case(folder, FLAG, state="draft")
    if dicom:
        with_dicom(folder)
    assert main(["plan", "screws", str(folder), "--levels", "T8", "--json", str(folder / "screws.json")]) == 0
    plans, trail = PlanRevisions(folder), CaseTrail(folder)
    plan = plans.newest()
    items = [*plan.items, *MEASURED, *more]
    if views:
        items += [view("T8-left", k + 1, at) for k, at in enumerate(LEFT_VIEWS)]
        items.append(view("T8-right", 1, RIGHT_VIEW, error_mm=0.52, bound_mm=9.9))
    if acknowledge:
        number = trail.add("plan", user="ada", revision=plan.revision + 1, what="acknowledged", flags=[POOR_BONE])
        said = {"acknowledged_by": "ada", "audit": str(number)}
        items = [i.model_copy(update=said) if isinstance(i, Flag) else i for i in items]
    plan = plans.add(plan.model_copy(update={"items": tuple(items), "author": "ada"}), parent=plan.revision)
    if approve:
        for state in ("reviewed", "approved"):
            trail.add("plan", user="ada", revision=plan.revision + 1, what=state)
            plan = plans.add(plan.model_copy(update={"state": state, f"{state}_by": "ada"}), parent=plan.revision)
    asked = {"key": "level", "text": "Which level is it? It is drafted as T8.", "choices": ["T8", "T9"], "evidence": ""}
    answered = {**asked, "answer": "T8", "answered_by": "ben", "answered_at": "2026-01-05T10:00:00+00:00"}
    write_questions(folder, {"revision": 1, "questions": [], "warnings": ["metal beside T8"], "answered": [answered]})
    return folder


def open_level(folder):
    """Takes the answer back: the level is asked again."""
    asked = {"key": "level", "text": "Which level is it? It is drafted as T8.", "choices": ["T8", "T9"], "evidence": ""}
    write_questions(folder, {"revision": 1, "questions": [asked], "warnings": [], "answered": []})


def with_dicom(folder):
    """Gives the case its CT as a DICOM series with a patient's name, and a plan of it."""
    image = read_volume(folder / "ct.nrrd").image
    write_series(image, folder / "ct")
    content = yaml.safe_load((folder / "case.yaml").read_text())
    (folder / "case.yaml").write_text(yaml.safe_dump({**content, "ct": "ct"}))
    plan = read_plan(folder / "plan.yaml")
    ct_hash = volume_hash(read_volume(folder / "ct").image)
    (folder / "plan.yaml").write_text(
        yaml.safe_dump({**plan.model_dump(mode="json"), "ct_hash": ct_hash}, allow_unicode=True)
    )


def write_series(image, folder):
    """Writes a CT as a DICOM series of the patient `WHO`."""
    folder.mkdir()
    uids = {k: generate_uid() for k in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")}
    for k, plane in enumerate(sitk.GetArrayViewFromImage(image)):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = CTImageStorage, ExplicitVRLittleEndian
        meta.MediaStorageSOPInstanceUID = generate_uid()
        ds = Dataset()
        ds.file_meta = meta
        ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        for keyword, value in {**WHO, **uids}.items():
            setattr(ds, keyword, value)
        ds.PatientSex, ds.StudyDate, ds.StudyTime, ds.StudyID = "F", "20260102", "101112", "1"
        ds.Modality, ds.PatientPosition, ds.Manufacturer, ds.PositionReferenceIndicator = "CT", "HFS", "", ""
        ds.ImageType, ds.SeriesNumber, ds.InstanceNumber = ["ORIGINAL", "PRIMARY", "AXIAL"], 1, k + 1
        ds.ImagePositionPatient = [f"{v:.6g}" for v in image.TransformIndexToPhysicalPoint((0, 0, k))]
        ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        ds.PixelSpacing, ds.SliceThickness = [image.GetSpacing()[1], image.GetSpacing()[0]], image.GetSpacing()[2]
        ds.Rows, ds.Columns, ds.SamplesPerPixel, ds.PhotometricInterpretation = *plane.shape, 1, "MONOCHROME2"
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
        ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = 0, 1, "HU"
        ds.PixelData = plane.astype("<i2").tobytes()
        ds.save_as(folder / f"{k:03d}.dcm", enforce_file_format=True)
