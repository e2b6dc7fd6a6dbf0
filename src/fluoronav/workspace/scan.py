"""The CT of a case, unpacked once into a file of int16 that is then read slice by slice."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from fluoronav.case import CaseError, read_volume, to_hounsfield
from fluoronav.case.file import CaseFile, read_case_file
from fluoronav.durable import moved, written
from fluoronav.planning.plan.hashes import volume_hash
from fluoronav.planning.plan.source import frame_of_reference
from fluoronav.workspace.cases import CACHE, one_at_a_time

_SLICES = 16  # converted at a time; chosen: 8 MB
_VERSION = 1  # of the unpacked files
_WINDOW_HU = (400, 1800)  # centre and width in which bone and soft tissue can be told apart; chosen


@dataclass(frozen=True)
class Scan:
    """Where the CT's voxels are, and what is known of them.

    Attributes
    ----------
    size : tuple of 3 int
        x, y, z.
    spacing_mm, origin_ct : tuple of 3 float
    direction : tuple of 9 float
        Row by row; its columns are the grid's axes, LPS.
    ct_hash : str
        By :func:`fluoronav.planning.plan.hashes.volume_hash`.
    frame_of_reference : str
        UID, or empty.
    warnings : tuple of str
    path : Path
        int16, little-endian, z y x.
    """

    size: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    origin_ct: tuple[float, float, float]
    direction: tuple[float, ...]
    ct_hash: str
    frame_of_reference: str
    warnings: tuple[str, ...]
    path: Path

    @property
    def shape(self) -> tuple[int, int, int]:
        """z, y, x."""
        return self.size[2], self.size[1], self.size[0]

    @property
    def voxels(self) -> int:
        return self.size[0] * self.size[1] * self.size[2]

    @property
    def voxel_cm3(self) -> float:
        return float(np.prod(self.spacing_mm)) / 1000

    def hounsfield(self) -> NDArray[np.int16]:
        """The voxels (z, y, x), mapped from the file."""
        return np.memmap(self.path, "<i2", "r", shape=self.shape)

    def step_mm(self) -> NDArray[np.float64]:
        """Maps steps of voxels (x, y, z) to LPS mm, shape (3, 3)."""
        return np.asarray(np.array(self.direction).reshape(3, 3) * np.array(self.spacing_mm), np.float64)

    def index_of(self, point_ct: NDArray[np.float64]) -> NDArray[np.float64]:
        """Voxel coordinates (x, y, z) of a point, LPS mm."""
        off_ct = np.asarray(point_ct, float) - np.array(self.origin_ct)
        return np.asarray(np.linalg.solve(self.step_mm(), off_ct), np.float64)

    def head(self) -> dict[str, Any]:
        """What the page is told."""
        return {
            "size": self.size, "spacing_mm": self.spacing_mm, "origin_ct": self.origin_ct, "direction": self.direction,
            "hash": self.ct_hash, "window": _WINDOW_HU, "frame_of_reference": self.frame_of_reference,
        }  # fmt: skip

    def image(self, labels: NDArray) -> sitk.Image:
        """A label map (z, y, x) of this grid as an image."""
        out = sitk.GetImageFromArray(labels)
        out.SetSpacing(self.spacing_mm)
        out.SetOrigin(self.origin_ct)
        out.SetDirection(self.direction)
        return out


def known_scan(folder: Path) -> Scan | None:
    """The unpacked CT of a case; None where it has to be unpacked first."""
    path = folder / CACHE / f"ct-{_stamp(folder, read_case_file(folder / 'case.yaml'))}.json"
    try:
        content: dict[str, Any] = json.loads(path.read_bytes())
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in content.items()}
        scan = Scan(**values, path=path.with_suffix(".raw"))
        return scan if scan.path.stat().st_size == 2 * scan.voxels else None
    except (OSError, ValueError, TypeError):
        return None


def is_unpacked(folder: Path) -> bool:
    """Whether the CT of a case needs not be unpacked; True, too, where its case file cannot be read."""
    try:
        return known_scan(folder) is not None
    except CaseError:
        return True


def unpacked_scan(folder: Path) -> Scan:
    """Unpacks the CT of a case. Takes the memory of the whole volume: for a process of its own.

    Raises
    ------
    CaseError
    """
    with one_at_a_time(folder):
        return known_scan(folder) or _unpacked(folder)


def _unpacked(folder: Path) -> Scan:
    file = read_case_file(folder / "case.yaml")
    volume = read_volume(folder / file.ct, file.ct_series)
    if file.units is not None:
        volume = to_hounsfield(volume, file.units, "units:").volume
    image = volume.image
    cache = folder / CACHE
    for old in cache.glob("ct-*"):
        old.unlink()
    path = cache / f"ct-{_stamp(folder, file)}.raw"
    part = path.with_suffix(".part")
    _write_int16(image, part)
    moved(part, path)
    scan = Scan(
        image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection(), volume_hash(image),
        frame_of_reference(volume.path), volume.warnings, path,
    )  # fmt: skip
    content = asdict(scan)
    del content["path"]
    written(path.with_suffix(".json"), json.dumps(content).encode())
    return scan


def _write_int16(image: sitk.Image, path: Path) -> None:
    view = sitk.GetArrayViewFromImage(image)
    limits = np.iinfo(np.int16)
    with path.open("wb") as file:
        for k in range(0, view.shape[0], _SLICES):
            slab = view[k : k + _SLICES]
            if slab.dtype != np.int16:
                slab = np.clip(np.rint(slab), limits.min, limits.max).astype("<i2")
            file.write(np.ascontiguousarray(slab, "<i2").data)


def _stamp(folder: Path, file: CaseFile) -> str:
    """Changes when another CT is in the case: names, sizes and times of its files, and how they are read."""
    ct = folder / file.ct
    digest = hashlib.sha256(repr((_VERSION, str(file.ct), file.ct_series, file.units)).encode())
    for path in sorted(p for p in ct.rglob("*") if p.is_file()) if ct.is_dir() else [ct]:
        try:
            stat = path.stat()
        except OSError as error:
            raise CaseError(f"{path.name}: the case's CT cannot be read: {error.strerror}") from error
        digest.update(repr((path.name, stat.st_size, stat.st_mtime_ns)).encode())
    return digest.hexdigest()[:16]
