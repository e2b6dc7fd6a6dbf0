"""Sequences of frames, rendered once and cached, so that the grabber only has to send them."""

from __future__ import annotations

import hashlib
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from fluoronav.case import Case
from fluoronav.case.tool import Tool
from fluoronav.geometry import ArmJoints, Camera
from fluoronav.imaging.projector import padded_rays
from fluoronav.lab.simulation.flat_panel import FlatPanel, ImageChain
from fluoronav.lab.simulation.metal import Metal, axis_points, k_wire, profile_mm, steel_mm
from fluoronav.lab.simulation.scenario import Scenario
from fluoronav.lab.simulation.xray import Scan, transmission
from fluoronav.paths import cache_folder

_VERSION = "sequence 7"  # of the renderer, for the cache's key


@dataclass(frozen=True)
class RenderSettings:
    """How sequences are rendered and cached; all chosen."""

    # Step of the ray march in the case's CT: half of the registration's, so that the truth is finer.
    fine_step_mm: float = 0.5
    coarse_step_mm: float = 1.5  # in the scan around it
    ramp_mm: float = 8.0  # over which the two scans blend
    nearest_tool_mm: float = 100.0  # from the source; a tool that comes nearer is left out
    kept_sequences: int = 4  # in the cache: 600 MB each at 1024 x 1024


SETTINGS = RenderSettings()


@dataclass(frozen=True)
class Sequence:
    """A rendered sequence.

    Attributes
    ----------
    frames : ndarray of uint16 or uint8, shape (n, rows, cols)
        Memory-mapped.
    T_camera_ct : ndarray, shape (n, 4, 4)
        The truth, mm.
    T_ct_tool : ndarray, shape (n, 4, 4) or None
    joints : tuple of ArmJoints
        Joints of the C-arm, by frame.
    """

    frames: NDArray
    T_camera_ct: NDArray[np.float64]
    T_ct_tool: NDArray[np.float64] | None
    scenario: Scenario
    bits: int
    joints: tuple[ArmJoints, ...]


def load_or_render(
    case: Case,
    camera: Camera,
    scenario: Scenario | None = None,
    panel: FlatPanel | None = None,
    cache: Path | None = None,
    threads: int = 2,
) -> Sequence:
    """The sequence of a scenario, from the cache or rendered with a progress bar.

    Parameters
    ----------
    case : Case
    camera : Camera
        Sets the frames' size.
    cache : Path, optional
        Folder; the user's cache by default. A 1024 x 1024 sequence takes 600 MB; only the newest four are kept.
    """
    scenario, panel = scenario or Scenario(), panel or FlatPanel()
    root = cache or cache_folder("sequences")
    key = json.dumps([_VERSION, case.id, camera.rows, camera.cols, camera.K.tolist(), asdict(scenario), asdict(panel)])
    folder = root / hashlib.sha256(key.encode()).hexdigest()[:24]
    T_camera_ct = scenario.poses(case)[[scenario.anatomy_index(i) for i in range(scenario.frames)]]
    T_ct_tool = scenario.wire(case)
    if not (folder / "frames.npy").exists():
        _prune(root)
        _render(case, camera, scenario, panel, folder, T_ct_tool, threads)
    (folder / "frames.npy").touch()
    frames = np.load(folder / "frames.npy", mmap_mode="r")
    joints = scenario.joints(case)
    by_frame = tuple(joints[scenario.anatomy_index(i)] for i in range(scenario.frames))
    return Sequence(frames, T_camera_ct, T_ct_tool, scenario, panel.bits, by_frame)


def _prune(root: Path) -> None:
    done = sorted(root.glob("*/frames.npy"), key=lambda p: p.stat().st_mtime)
    for old in done[: max(0, len(done) - SETTINGS.kept_sequences + 1)]:
        shutil.rmtree(old.parent, ignore_errors=True)


def _render(
    case: Case,
    camera: Camera,
    scenario: Scenario,
    panel: FlatPanel,
    folder: Path,
    T_ct_tool: NDArray | None,
    threads: int,
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f"frames.{np.random.default_rng().integers(2**40)}.tmp"
    dtype = np.uint8 if panel.bits == 8 else np.uint16
    frames = np.lib.format.open_memmap(
        temporary, mode="w+", dtype=dtype, shape=(scenario.frames, camera.rows, camera.cols)
    )
    anatomy = Anatomy(case, camera.scaled(0.5))
    chain = ImageChain(panel, camera.rows, camera.cols, scenario.seed)
    poses = scenario.poses(case)

    def one(k: int) -> int:
        water, bone = anatomy.paths(poses[k])
        plain = cv2.resize(anatomy.transmission(water, bone), (camera.cols, camera.rows), interpolation=cv2.INTER_CUBIC)
        shown = [i for i in range(scenario.frames) if scenario.anatomy_index(i) == k]
        for i in shown:
            beam = plain.copy()
            if T_ct_tool is not None:
                _add_tool(beam, camera, poses[k] @ T_ct_tool[i], case.tools[0], water, bone)
            frames[i] = chain.counts(np.asarray(beam, dtype=np.float32), scenario.seed + i).astype(dtype)
        return len(shown)

    try:
        with (
            ThreadPoolExecutor(threads, thread_name_prefix="render") as pool,
            tqdm(total=scenario.frames, desc="rendering C-arm frames", unit="frame") as bar,
        ):
            for count in pool.map(one, range(scenario.anatomy_frames)):
                bar.update(count)
        frames.flush()
        temporary.replace(folder / "frames.npy")
    finally:
        temporary.unlink(missing_ok=True)


class Anatomy:
    """The patient in the beam: the case's CT on its own grid and, if there is one, a coarse scan around it."""

    def __init__(self, case: Case, camera: Camera) -> None:
        self.fine = _scan(case.ct, SETTINGS.fine_step_mm)
        self.around = None if case.surroundings is None else _scan(case.surroundings, SETTINGS.coarse_step_mm)
        self.shape = (camera.rows, camera.cols)
        self.directions, self.count = padded_rays(camera.rays(camera.pixel_grid()))
        self.box_ct = np.array([self.fine.first_ct, self.fine.last_ct])
        if self.around is None:
            # Without a scan around it the weights stay 1 up to the scan's faces.
            self.box_ct = self.box_ct + np.array([[-2 * SETTINGS.ramp_mm], [2 * SETTINGS.ramp_mm]])
        else:
            # It has low frequencies only: a quarter of the rays suffices.
            half = camera.scaled(0.5)
            self.around_shape = (half.rows, half.cols)
            self.around_directions, self.around_count = padded_rays(half.rays(half.pixel_grid()))

    def paths(self, T_camera_ct: NDArray) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Water and bone along each ray, g/cm2, two arrays of shape (rows, cols)."""
        paths = np.zeros((2, self.directions.shape[1]), np.float32)
        self.fine.add_paths(T_camera_ct, self.directions, paths, self.box_ct, SETTINGS.ramp_mm, True)
        water, bone = (p[: self.count].reshape(self.shape) for p in paths)
        if self.around is not None:
            coarse = np.zeros((2, self.around_directions.shape[1]), np.float32)
            self.around.add_paths(T_camera_ct, self.around_directions, coarse, self.box_ct, SETTINGS.ramp_mm, False)
            for total, part in zip((water, bone), coarse, strict=True):
                part = part[: self.around_count].reshape(self.around_shape)
                total += cv2.resize(part, self.shape[::-1], interpolation=cv2.INTER_CUBIC)
        return np.maximum(water, 0), np.maximum(bone, 0)

    @staticmethod
    def transmission(water: NDArray, bone: NDArray) -> NDArray[np.float32]:
        """Fraction of the open beam that is detected, without instruments."""
        out = np.empty(water.size, np.float32)
        transmission(water.ravel(), bone.ravel(), np.zeros(water.size, np.float32), out)
        return out.reshape(water.shape)


def _scan(volume, step_mm: float) -> Scan:
    """The volume along the patient axes; an oblique scan is resampled at its finest spacing."""
    image = volume.image
    direction = np.array(image.GetDirection()).reshape(3, 3)
    if np.allclose(np.abs(direction), np.eye(3), atol=1e-4):
        hu = volume.voxels
        spacing = np.array(image.GetSpacing()) * np.sign(np.diag(direction))
        origin = np.array(image.GetOrigin())
        for axis, step in enumerate(spacing):
            if step < 0:
                hu = np.flip(hu, 2 - axis)
                origin[axis] += step * (image.GetSize()[axis] - 1)
        return Scan(hu, origin, np.abs(spacing), step_mm)
    corners = volume.corners_ct()
    spacing = min(image.GetSpacing())
    size = np.ceil(np.ptp(corners, axis=0) / spacing).astype(int) + 1
    hu = volume.resampled(corners.min(0), tuple(size), spacing, -1024.0)
    return Scan(hu.astype(np.int16), corners.min(0), np.full(3, spacing), step_mm)


def _add_tool(beam: NDArray, camera: Camera, T_camera_tool: NDArray, tool: Tool, water: NDArray, bone: NDArray) -> None:
    """Replaces the pixels behind a tool, where steel hardens the beam."""
    metal = tool_metal(tool)
    T = T_camera_tool @ tool.T_tool_tip()
    points = axis_points(metal, T[:3, 3], T[:3, 2], T[:3, 0])
    if not (points[:, 2] > SETTINGS.nearest_tool_mm).all():
        return
    steel = np.zeros(beam.shape, np.float32)
    at = steel_mm(metal, points, camera, steel)
    if len(at) == 0:
        return
    rows, cols = np.divmod(at, camera.cols)
    half = ((cols.astype(np.float32) - 0.5) / 2)[None], ((rows.astype(np.float32) - 0.5) / 2)[None]
    w, b = (cv2.remap(p, *half, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)[0] for p in (water, bone))
    out = np.empty(len(at), np.float32)
    transmission(w, b, steel.reshape(-1)[at], out)
    beam.reshape(-1)[at] = out


def tool_metal(tool: Tool) -> Metal:
    """A case's tool as metal: by its profile, or as a wire with a trocar point."""
    if not tool.profile:
        return k_wire(tool.diameter_mm, tool.length_mm)
    radius = tool.radii_mm(profile_mm(tool.length_mm)).astype(np.float32)
    return Metal(tool.kind, radius, np.zeros_like(radius))
