"""Files that are not what they look like: each is refused with the reason, or its oddity is said."""

from __future__ import annotations

import gzip
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import yaml

from fluoronav.bench.faults.command import fluoronav, named, refusal
from fluoronav.bench.faults.place import Place
from fluoronav.bench.faults.row import Fault, NotHere, Outcome
from fluoronav.paths import embedded_case

# 80 x 90 x 20 voxels of the embedded CT, around T8.
_CROP = (slice(58, 138), slice(110, 200), slice(33, 53))
_PRIOR = {"isocentre_ct": [0, 91.7, -158.5], "source_to_isocentre_mm": 620}
_SPACING_SAID = "0.703 x 0.703 x 2.5 mm"
_HANGS_S, _QUICKLY_S = 20.0, 15.0
_BOMB_SIDE, _MEMBER_BYTES = 1600, 64 * 2**20


def _crop(name: str) -> sitk.Image:
    return sitk.ReadImage(str(embedded_case().parent / f"{name}.nrrd"))[_CROP]


def _case(folder: Path, ct: str, **more: Any) -> Path:
    path = folder / "case.yaml"
    path.write_text(yaml.safe_dump({"name": "odd", "ct": ct, "prior": _PRIOR} | more))
    return path


def _build(folder: Path, case: Path, seconds: float = 60.0):
    return fluoronav("case", "build", case, folder=folder, seconds=seconds)


def _labels_outside(place: Place) -> Outcome:
    folder = place.folder()
    labels = _crop("labels")
    sitk.WriteImage(_crop("ct"), str(folder / "ct.nrrd"))
    labels.SetOrigin([x + 1000 for x in labels.GetOrigin()])
    sitk.WriteImage(labels, str(folder / "labels.nrrd"))
    cord = {"name": "spinal_cord", "label": 79, "color": "#ffffff", "caution_mm": 5, "danger_mm": 2}
    ended = _build(folder, _case(folder, "ct.nrrd", labels="labels.nrrd", structures=[cord]))
    return named(ended, "outside", "inside", "overlap", "do not meet")


def _nrrd_in_cm(place: Place) -> Outcome:
    folder, ct = place.folder(), _crop("ct")
    spacing, origin = np.array(ct.GetSpacing()) / 10, np.array(ct.GetOrigin()) / 10
    axes = " ".join(f"({','.join(str(s if i == j else 0) for j in range(3))})" for i, s in enumerate(spacing))
    head = [
        "NRRD0005", "type: short", "dimension: 3", "space: left-posterior-superior",
        "sizes: {} {} {}".format(*ct.GetSize()), f"space directions: {axes}",
        f"space origin: ({','.join(map(str, origin))})", 'space units: "cm" "cm" "cm"',
        "kinds: domain domain domain", "endian: little", "encoding: raw",
    ]  # fmt: skip
    voxels = sitk.GetArrayFromImage(ct).astype("<i2").tobytes()
    (folder / "ct.nrrd").write_bytes("\n".join(head).encode() + b"\n\n" + voxels)
    ended = _build(folder, _case(folder, "ct.nrrd"))
    if ended.code == 0 and _SPACING_SAID in ended.text:
        return Outcome(said_after_ms=ended.seconds * 1000, seen=f"taken as {_SPACING_SAID}")
    return refusal(ended, "cm", "unit")


def _nifti_two_forms(place: Place) -> Outcome:
    folder = place.folder()
    path = folder / "ct.nii"
    sitk.WriteImage(_crop("ct"), str(path))
    raw = bytearray(path.read_bytes())
    form = np.array(struct.unpack_from("<12f", raw, 280)).reshape(3, 4)
    form[:, 3] += 25.0
    struct.pack_into("<hh", raw, 252, 1, 1)
    struct.pack_into("<12f", raw, 280, *form.ravel())
    path.write_bytes(raw)
    return named(_build(folder, _case(folder, "ct.nii")), "sform", "qform")


def _ct_is_mr(place: Place) -> Outcome:
    folder = place.folder()
    _write_series(folder / "ct", Modality="MR", SOPClassUID="1.2.840.10008.5.1.4.1.1.4")
    return refusal(_build(folder, _case(folder, "ct")), "modality", " mr")


def _ct_without_rescale(place: Place) -> Outcome:
    folder = place.folder()
    _write_series(folder / "ct", RescaleSlope=None, RescaleIntercept=None)
    return refusal(_build(folder, _case(folder, "ct")), "rescale")


def _write_series(folder: Path, **tags: Any) -> None:
    """The crop as a DICOM series; a tag that is None is left out."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    ct = _crop("ct")
    voxels, (sx, sy, sz) = sitk.GetArrayFromImage(ct), ct.GetSpacing()
    series, frame = generate_uid(), generate_uid()
    folder.mkdir()
    for k in range(voxels.shape[0]):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = tags.get("SOPClassUID", CTImageStorage)
        meta.MediaStorageSOPInstanceUID, meta.TransferSyntaxUID = generate_uid(), ExplicitVRLittleEndian
        d = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
        values = {
            "SOPClassUID": CTImageStorage, "SOPInstanceUID": meta.MediaStorageSOPInstanceUID, "Modality": "CT",
            "SeriesInstanceUID": series, "FrameOfReferenceUID": frame, "InstanceNumber": k + 1,
            "Rows": voxels.shape[1], "Columns": voxels.shape[2], "SamplesPerPixel": 1,
            "PhotometricInterpretation": "MONOCHROME2", "BitsAllocated": 16, "BitsStored": 16, "HighBit": 15,
            "PixelRepresentation": 0, "PixelSpacing": [sy, sx], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
            "ImagePositionPatient": list(ct.TransformIndexToPhysicalPoint((0, 0, k))), "SliceThickness": sz,
            "RescaleSlope": 1, "RescaleIntercept": -1024,
            "PixelData": (voxels[k].astype(np.int32) + 1024).clip(0, 65535).astype("<u2").tobytes(),
        }  # fmt: skip
        for name, value in (values | tags).items():
            if value is not None:
                setattr(d, name, value)
        d.save_as(folder / f"{k:04d}.dcm", enforce_file_format=True)


def _volume_bomb(place: Place) -> Outcome:
    """8 GB of voxels in a file of some MB: one compressed piece, many times over."""
    folder = place.folder()
    sitk.WriteImage(sitk.Image([2, 2, 2], sitk.sitkInt16), str(folder / "small.nii"))
    head = bytearray((folder / "small.nii").read_bytes()[:352])
    struct.pack_into("<8h", head, 40, 3, _BOMB_SIDE, _BOMB_SIDE, _BOMB_SIDE, 1, 1, 1, 1)
    piece = gzip.compress(bytes(_MEMBER_BYTES), 6)
    whole, rest = divmod(2 * _BOMB_SIDE**3, _MEMBER_BYTES)
    with (folder / "ct.nii.gz").open("wb") as file:
        file.write(gzip.compress(bytes(head)))
        for _ in range(whole):
            file.write(piece)
        file.write(gzip.compress(bytes(rest)))
    ended = _build(folder, _case(folder, "ct.nii.gz"), seconds=90)
    outcome = refusal(ended, "large", "memory", "voxels", "gb", within_s=_QUICKLY_S)
    outcome.seen = f"{ended.peak_mb:.0f} MB of memory at the most; {ended.last}"
    return outcome


def _fifo(place: Place) -> Outcome:
    if not hasattr(os, "mkfifo"):
        raise NotHere("this system has no named pipes")
    folder = place.folder()
    os.mkfifo(folder / "ct.nrrd")
    ended = _build(folder, _case(folder, "ct.nrrd"), seconds=_HANGS_S)
    return refusal(ended, "file", "pipe", "fifo", within_s=_QUICKLY_S)


def _camera(place: Place) -> Outcome:
    folder = place.folder()
    camera = {"rows": 256, "cols": 256, "K": [[1e-300, 0, 128], [0, 1e-300, 128], [0, 0, 1]]}
    (folder / "camera.yaml").write_text(yaml.safe_dump(camera))
    launch = launch_file(folder, camera="camera.yaml")
    ended = fluoronav("run", launch, folder=folder, until="ready after")
    if "ready after" in ended.text:
        return Outcome(["it starts, and says that it is ready"])
    return refusal(ended, "focal", "k[0][0]", "k:", "camera.yaml")


def launch_file(folder: Path, **more: Any) -> Path:
    """A launch file of the embedded case on free endpoints, with trails and recordings in the folder."""
    from fluoronav.paths import shipped
    from fluoronav.simulation.rig import free_endpoints

    content = {
        "case": "embedded", "camera": str(shipped("calibration/demo-carm.yaml").resolve()), "audit": "audit",
        "recordings": "recordings", "endpoints": free_endpoints("tcp", folder),
    }  # fmt: skip
    path = folder / "launch.yaml"
    path.write_text(yaml.safe_dump(content | more))
    return path


FAULTS = (
    Fault("labels-outside-ct", "refused, or said", _labels_outside),
    Fault("nrrd-in-cm", "taken as cm, or refused with the unit", _nrrd_in_cm),
    Fault("nifti-two-forms", "refused with both forms, or said which was taken", _nifti_two_forms),
    Fault("ct-is-mr", "refused with the modality", _ct_is_mr),
    Fault("ct-without-rescale", "refused with what is missing", _ct_without_rescale),
    Fault("volume-bomb", "refused within 15 s and 1.5 GB", _volume_bomb),
    Fault("fifo-as-ct", "refused, not waited for", _fifo),
    Fault("camera-focal-1e-300", "refused with the number", _camera),
)
