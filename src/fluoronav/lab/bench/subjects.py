"""Subjects of the registration's benches: exposures of real CTs from many known poses.

A subject is a case, a camera and a set of poses. The exposures come from the simulator's X-ray model, which differs
from the registration's: five energies, two materials, scatter, blur, quantum noise, and the whole trunk in the beam.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import yaml
from numpy.typing import NDArray
from tqdm import tqdm

from fluoronav.case import Case, load_case, read_volume
from fluoronav.geometry import Camera, CArmPose, inverse, moved_about, transform_points
from fluoronav.lab.simulation.flat_panel import FlatPanel, ImageChain
from fluoronav.lab.simulation.sequence import Anatomy
from fluoronav.paths import cache_folder, shipped

Float = NDArray[np.float64]

_VERSION = "subjects 1"  # of the exposures, for the cache's key


@dataclass(frozen=True)
class ViewSpread:
    """Uniform spread of the views around the case's prior; chosen: a spine surgeon's views, nearly AP to oblique."""

    orbital_deg: float = 35.0
    angular_deg: float = 12.0
    swivel_deg: float = 10.0
    shift_mm: float = 15.0
    depth_mm: float = 60.0


VIEWS = ViewSpread()
# Name: rigid structures, orbital angle of the middle view. T3 to T12 lie in the scan with parts of their neighbours.
_CHEST = {
    "T5": (("vertebrae_T5",), 0.0),
    "T8": (("vertebrae_T8",), 0.0),
    "T11": (("vertebrae_T11",), 0.0),
    "ribs": (tuple(f"rib_left_{n}" for n in range(4, 10)), -45.0),
}
SUBJECTS = ("embedded", *_CHEST)


@dataclass(frozen=True)
class Subject:
    """A case and exposures of it.

    Attributes
    ----------
    T_camera_ct : ndarray, shape (n, 4, 4)
        The truth.
    beams : ndarray of float32, shape (n, rows / 2, cols / 2)
        Fraction of the open beam behind the patient, without noise.
    """

    name: str
    case: Case
    camera: Camera
    T_camera_ct: Float
    beams: NDArray[np.float32] = field(repr=False)

    def counts(self, index: int, panel: FlatPanel | float = 80.0, seed: int = 0) -> NDArray[np.uint16]:
        """One exposure by a panel, or at a dose (mean detected photons per pixel), shape (rows, cols), 16 bit."""
        beam = cv2.resize(self.beams[index], (self.camera.cols, self.camera.rows), interpolation=cv2.INTER_CUBIC)
        settings = panel if isinstance(panel, FlatPanel) else FlatPanel(photons=panel)
        chain = ImageChain(settings, self.camera.rows, self.camera.cols, 3)
        return chain.counts(np.asarray(beam, dtype=np.float32), 1000 * seed + index)

    def points_ct(self) -> Float:
        """Targets for the errors: 40 points of the rigid structures, LPS mm, shape (40, 3)."""
        return targets_ct(self.case)


def load_subject(name: str, poses: int, data: Path, seed: int = 11) -> Subject:
    """A subject with its exposures, from the cache or rendered with a progress bar.

    Parameters
    ----------
    name : str
        One of SUBJECTS.
    poses : int
    data : Path
        Folder that holds ``chest/``.
    seed : int
        Of the poses.

    Raises
    ------
    CaseError
    """
    case = load_case("embedded") if name == "embedded" else load_case(_chest_case(name, data))
    camera = Camera.load(shipped("calibration/demo-carm.yaml"))
    T_camera_ct = view_poses(case, poses, seed)
    key = hashlib.sha256(json.dumps([_VERSION, case.id, camera.K.tolist(), T_camera_ct.tolist()]).encode()).hexdigest()
    path = cache_folder("subjects") / f"{name}-{key[:16]}.npy"
    if not path.exists():
        np.save(path, rendered(case, camera, T_camera_ct, name))
    return Subject(name, case, camera, T_camera_ct, np.load(path, mmap_mode="r"))


def targets_ct(case: Case, count: int = 40) -> Float:
    """Points of the rigid structures, LPS mm, shape (count, 3); always the same."""
    assert case.labels is not None
    found = np.argwhere(np.isin(case.labels.voxels, case.rigid_labels))
    chosen = found[np.random.default_rng(5).integers(len(found), size=count)][:, ::-1].astype(float)
    return np.array([case.labels.image.TransformContinuousIndexToPhysicalPoint(c.tolist()) for c in chosen])


def errors_mm(T_camera_ct: Float, truth: Float, points_ct: Float) -> tuple[float, float, float]:
    """Mean target registration errors in space, across the ray, and along it, mm."""
    a, b = transform_points(T_camera_ct, points_ct), transform_points(truth, points_ct)
    ray = b / np.linalg.norm(b, axis=1, keepdims=True)
    along = ((a - b) * ray).sum(1)
    across = np.linalg.norm(a - b - along[:, None] * ray, axis=1)
    return float(np.linalg.norm(a - b, axis=1).mean()), float(across.mean()), float(np.abs(along).mean())


def starts(
    truth: Float, centre_ct: Float, rotation_deg: float, in_plane_mm: float, depth_mm: float, seed: int
) -> Iterator[Float]:
    """Endless random starts around a true pose, uniform about every camera axis, in the plane and in depth."""
    rng = np.random.default_rng(seed)
    R = truth[:3, :3]
    while True:
        turn = np.deg2rad(rng.uniform(-rotation_deg, rotation_deg, 3))
        shift = rng.uniform(-1, 1, 3) * [in_plane_mm, in_plane_mm, depth_mm]
        # A twist of the camera in CT axes moves the patient the opposite way in camera axes.
        yield inverse(moved_about(centre_ct, np.concatenate([R.T @ turn, R.T @ -shift])) @ inverse(truth))


def view_poses(case: Case, count: int, seed: int) -> Float:
    """``T_camera_ct`` of random views around the case's prior (:class:`ViewSpread`), shape (count, 4, 4), mm."""
    prior = case.prior
    rng = np.random.default_rng(seed)
    poses = []
    for _ in range(count):
        u = rng.uniform(-1, 1, 6)
        poses.append(
            CArmPose(
                tuple(np.asarray(prior.isocentre_ct) + u[:3] * VIEWS.shift_mm),
                prior.source_to_isocentre_mm + VIEWS.depth_mm * rng.uniform(-1, 1),
                prior.orbital_deg + VIEWS.orbital_deg * u[3],
                prior.angular_deg + VIEWS.angular_deg * u[4],
                prior.swivel_deg + VIEWS.swivel_deg * u[5],
            ).T_camera_ct()
        )
    return np.array(poses)


def rendered(case: Case, camera: Camera, T_camera_ct: Float, name: str) -> NDArray[np.float32]:
    anatomy = Anatomy(case, camera.scaled(0.5))

    def one(T: Float) -> NDArray[np.float32]:
        return anatomy.transmission(*anatomy.paths(T))

    with ThreadPoolExecutor(2) as pool:
        return np.array(list(tqdm(pool.map(one, T_camera_ct), f"exposing {name}", len(T_camera_ct), unit="frame")))


def _chest_case(name: str, data: Path) -> Path:
    """Writes the case file of a subject from the full chest CT; returns its path."""
    import csv

    chest = (data / "chest").resolve()
    rigid, orbital = _CHEST[name]
    with open(chest / "labels.csv", encoding="utf-8") as lines:
        label = {row["structure"]: int(row["id"]) for row in csv.DictReader(lines)}
    low, high = read_volume(chest / "labels.nii.gz").extent_ct(tuple(label[s] for s in rigid))
    content = {
        "name": f"chest-{name}",
        "ct": str(chest / "ct.nii.gz"),
        "labels": str(chest / "labels.nii.gz"),
        "structures": [{"name": s, "label": label[s]} for s in rigid],
        "rigid": {"structures": list(rigid)},
        "prior": {
            "isocentre_ct": np.round((low + high) / 2, 1).tolist(),
            "source_to_isocentre_mm": 620.0,
            "orbital_deg": orbital,
        },
    }
    folder = cache_folder("subjects") / f"chest-{name}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "case.yaml").write_text(yaml.safe_dump(content))
    return folder / "case.yaml"
