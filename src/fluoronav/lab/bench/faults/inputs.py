"""Files with inconsistent content: each is refused with a reason, or its oddity is reported."""

from __future__ import annotations

import gzip
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import yaml

from fluoronav.lab.bench.faults.command import all_of, fluoronav, named, refusal
from fluoronav.lab.bench.faults.place import Place
from fluoronav.lab.bench.faults.row import Fault, NotHere, Outcome
from fluoronav.lab.bench.faults.scans import CORD, build, crop, save, slices, write_case

_SPACING_SAID = "0.703 x 0.703 x 2.5 mm"


@dataclass(frozen=True)
class InputFaults:
    """Limits of commands on odd files, and sizes; chosen."""

    hangs_s: float = 20.0  # after which a command hangs
    quickly_s: float = 15.0  # within which it refuses
    bomb_side: int = 1600  # voxels along a side: 8 GB
    member_bytes: int = 64 * 2**20  # of each compressed piece


LIMITS = InputFaults()


def _labels_outside(place: Place) -> Outcome:
    folder = place.folder()
    labels = crop("labels")
    sitk.WriteImage(crop("ct"), str(folder / "ct.nrrd"))
    labels.SetOrigin([x + 1000 for x in labels.GetOrigin()])
    sitk.WriteImage(labels, str(folder / "labels.nrrd"))
    ended = build(folder, write_case(folder, "ct.nrrd", labels="labels.nrrd", structures=[CORD]))
    return named(ended, "outside", "inside", "overlap", "do not meet")


def _nrrd_in_cm(place: Place) -> Outcome:
    folder, ct = place.folder(), crop("ct")
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
    ended = build(folder, write_case(folder, "ct.nrrd"))
    if ended.code == 0 and _SPACING_SAID in ended.text:
        return Outcome(said_after_ms=ended.seconds * 1000, seen=f"taken as {_SPACING_SAID}")
    return refusal(ended, "cm", "unit")


def _nifti_two_forms(place: Place) -> Outcome:
    folder = place.folder()
    path = folder / "ct.nii"
    sitk.WriteImage(crop("ct"), str(path))
    raw = bytearray(path.read_bytes())
    form = np.array(struct.unpack_from("<12f", raw, 280)).reshape(3, 4)
    form[:, 3] += 25.0
    struct.pack_into("<hh", raw, 252, 1, 1)
    struct.pack_into("<12f", raw, 280, *form.ravel())
    path.write_bytes(raw)
    return named(build(folder, write_case(folder, "ct.nii")), "sform", "qform")


def _nifti_sheared(place: Place) -> Outcome:
    """A gantry tilt of 15 degrees in the sform: alone, and with a qform without it."""
    folder = place.folder()
    sitk.WriteImage(crop("ct"), str(folder / "plain.nii"))
    plain = (folder / "plain.nii").read_bytes()
    form = np.array(struct.unpack_from("<12f", plain, 280)).reshape(3, 4)
    form[1, 2] -= np.tan(np.radians(15)) * form[2, 2]
    parts = {}
    for name, q_code in (("alone", 0), ("beside-qform", 1)):
        raw = bytearray(plain)
        struct.pack_into("<hh", raw, 252, q_code, 1)
        struct.pack_into("<12f", raw, 280, *form.ravel())
        (folder / f"{name}.nii").write_bytes(raw)
        ended = build(folder, write_case(folder, f"{name}.nii"))
        parts[name] = refusal(ended, "perpendicular", "shear", "tilt")
        if f"{name}.nii" not in ended.text:
            parts[name].problems.append("the file is not named")
    return all_of(parts)


def _ct_is_mr(place: Place) -> Outcome:
    folder = place.folder()
    save(slices(crop("ct"), Modality="MR", SOPClassUID="1.2.840.10008.5.1.4.1.1.4"), folder / "ct")
    return refusal(build(folder, write_case(folder, "ct")), "modality", " mr")


def _ct_without_rescale(place: Place) -> Outcome:
    folder = place.folder()
    save(slices(crop("ct"), RescaleSlope=None, RescaleIntercept=None), folder / "ct")
    return refusal(build(folder, write_case(folder, "ct")), "rescale")


def _volume_bomb(place: Place) -> Outcome:
    """8 GB of voxels in a file of some MB: one compressed piece, repeated."""
    folder = place.folder()
    sitk.WriteImage(sitk.Image([2, 2, 2], sitk.sitkInt16), str(folder / "small.nii"))
    head = bytearray((folder / "small.nii").read_bytes()[:352])
    struct.pack_into("<8h", head, 40, 3, LIMITS.bomb_side, LIMITS.bomb_side, LIMITS.bomb_side, 1, 1, 1, 1)
    piece = gzip.compress(bytes(LIMITS.member_bytes), 6)
    whole, rest = divmod(2 * LIMITS.bomb_side**3, LIMITS.member_bytes)
    with (folder / "ct.nii.gz").open("wb") as file:
        file.write(gzip.compress(bytes(head)))
        for _ in range(whole):
            file.write(piece)
        file.write(gzip.compress(bytes(rest)))
    ended = build(folder, write_case(folder, "ct.nii.gz"), seconds=90)
    outcome = refusal(ended, "large", "memory", "voxels", "gb", within_s=LIMITS.quickly_s)
    outcome.seen = f"{ended.peak_mb:.0f} MB of memory at the most; {ended.last}"
    return outcome


def _fifo(place: Place) -> Outcome:
    if not hasattr(os, "mkfifo"):
        raise NotHere("this system has no named pipes")
    folder = place.folder()
    os.mkfifo(folder / "ct.nrrd")
    ended = build(folder, write_case(folder, "ct.nrrd"), seconds=LIMITS.hangs_s)
    return refusal(ended, "file", "pipe", "fifo", within_s=LIMITS.quickly_s)


def _camera_of(place: Place, camera: dict[str, Any], *words: str) -> Outcome:
    folder = place.folder()
    (folder / "camera.yaml").write_text(yaml.safe_dump(camera))
    launch = launch_file(folder, camera="camera.yaml")
    ended = fluoronav("run", launch, folder=folder, until="ready after")
    if "ready after" in ended.text:
        return Outcome(["it starts, and says that it is ready"])
    return refusal(ended, *words)


def _camera(place: Place) -> Outcome:
    camera = {"rows": 256, "cols": 256, "K": [[1e-300, 0, 128], [0, 1e-300, 128], [0, 0, 1]]}
    return _camera_of(place, camera, "focal", "k[0][0]", "k:", "camera.yaml")


def _camera_larger(place: Place) -> Outcome:
    """Rows and columns of the whole panel, K of a binned image; with a zoom, the focal length alone does not tell."""
    parts = {}
    for name, side, zoom in (("binned by two", 2048, 1), ("binned by four, zoomed", 4096, 4)):
        focal, middle = zoom * 1000 / 300 * 1024, (1024 - 1) / 2
        camera = {"rows": side, "cols": side, "K": [[focal, 0, middle], [0, focal, middle], [0, 0, 1]]}
        parts[name] = _camera_of(place, camera, "must be of the same image")
        if "camera.yaml" not in parts[name].seen:
            parts[name].problems.append("the file is not named")
    return all_of(parts)


def launch_file(folder: Path, **more: Any) -> Path:
    """A launch file of the embedded case on free endpoints, with trails and recordings in the folder."""
    from fluoronav.lab.simulation.rig import free_endpoints
    from fluoronav.paths import shipped

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
    Fault("nifti-sheared", "refused: its axes are not perpendicular", _nifti_sheared),
    Fault("ct-is-mr", "refused with the modality", _ct_is_mr),
    Fault("ct-without-rescale", "refused with what is missing", _ct_without_rescale),
    Fault("volume-bomb", "refused within 15 s and 1.5 GB", _volume_bomb),
    Fault("fifo-as-ct", "refused, not waited for", _fifo),
    Fault("camera-focal-1e-300", "refused with the number", _camera),
    Fault("camera-larger-than-its-k", "refused: rows, cols and K are not of the same image", _camera_larger),
)
