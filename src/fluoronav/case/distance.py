"""Signed distance fields: the distance of any point of the patient from a structure's surface."""

from __future__ import annotations

import contextlib
import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from fluoronav.case.schema import CaseError
from fluoronav.case.volume import bounds
from fluoronav.kernels import njit

log = logging.getLogger(__name__)
_UNIT_MM = 0.01  # of a stored distance: 16 bits cover +-327 mm, finer than any segmentation
_VERSION = b"signed distance 4"
_SEAL_BYTES = 32
_MOST_HEADER_BYTES = 256  # of an .npy file
# Margin of a field around its structure. Chosen: farther away only an upper bound of the distance is known, and no
# threshold is that large.
_REACH_MM = 50.0


@dataclass(frozen=True)
class DistanceField:
    """Signed distance to one structure: positive outside, negative inside.

    Attributes
    ----------
    hundredths : ndarray of int16, shape (z, y, x)
        Distance in 0.01 mm on a grid along the patient axes.
    origin_ct, spacing_mm : ndarray, shape (3,)
        Of the grid, LPS mm, ordered (x, y, z).
    """

    hundredths: NDArray[np.int16]
    origin_ct: NDArray[np.float64]
    spacing_mm: NDArray[np.float64]

    def sample(self, points_ct: NDArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Distances and their gradients.

        Parameters
        ----------
        points_ct : array, shape (n, 3)
            LPS mm.

        Returns
        -------
        distance_mm : ndarray, shape (n,)
        gradient : ndarray, shape (n, 3)
            Unit vectors away from the structure.
        """
        points = np.ascontiguousarray(points_ct, dtype=np.float64).reshape(-1, 3)
        out = np.empty((len(points), 4))
        sample_distances(self.hundredths, self.origin_ct, self.spacing_mm, points, out)
        return out[:, 0], out[:, 1:]


@njit(cache=True, nogil=True, error_model="numpy", boundscheck=False)
def sample_distance(hundredths, origin, spacing, point, out):
    """Distance (mm) and unit gradient at one point, trilinear; outside the grid, the distance to the grid is added.

    Parameters
    ----------
    hundredths : int16 (z, y, x)
    origin, spacing, point : float64 (3,)
        LPS mm, ordered (x, y, z).
    out : float64 (4,)
        Written: distance, then gradient.
    """
    outside = 0.0
    index = np.empty(3, np.int64)
    f = np.empty(3)
    away = np.empty(3)
    for a in range(3):
        n = hundredths.shape[2 - a]
        x = (point[a] - origin[a]) / spacing[a]
        clamped = min(max(x, 0.0), n - 1.0)
        away[a] = (x - clamped) * spacing[a]
        outside += away[a] * away[a]
        index[a] = min(int(clamped), n - 2)
        f[a] = clamped - index[a]
    x, y, z = index
    value = 0.0
    gradient = np.zeros(3)
    for dz in range(2):
        wz = f[2] if dz else 1 - f[2]
        for dy in range(2):
            wy = f[1] if dy else 1 - f[1]
            for dx in range(2):
                wx = f[0] if dx else 1 - f[0]
                d = hundredths[z + dz, y + dy, x + dx] * _UNIT_MM
                value += wx * wy * wz * d
                gradient[0] += (1 if dx else -1) * wy * wz * d / spacing[0]
                gradient[1] += wx * (1 if dy else -1) * wz * d / spacing[1]
                gradient[2] += wx * wy * (1 if dz else -1) * d / spacing[2]
    if outside > 0:
        # To the grid's border, then by the field there: an upper bound, since the surface lies inside the grid.
        for a in range(3):
            gradient[a] = gradient[a] * max(value, 0.0) + away[a]
        value += np.sqrt(outside)
    length = np.sqrt(gradient[0] ** 2 + gradient[1] ** 2 + gradient[2] ** 2)
    out[0] = value
    for a in range(3):
        out[1 + a] = gradient[a] / length if length > 1e-9 else 0.0


@njit(cache=True, nogil=True, error_model="numpy", boundscheck=False)
def sample_distances(hundredths, origin, spacing, points, out):
    """:func:`sample_distance` of every point: points (n, 3), out (n, 4)."""
    for i in range(points.shape[0]):
        sample_distance(hundredths, origin, spacing, points[i], out[i])


def distance_field(labels: sitk.Image, label: int, cache: Path) -> DistanceField:
    """The signed distance field of one label, from the cache where the same one was computed before.

    Parameters
    ----------
    labels : SimpleITK.Image
        Label map along the patient axes (direction cosines are the unit matrix).
    label : int
    cache : Path
        Folder; the file's name is the hash of everything that the field depends on.

    Notes
    -----
    Exact Euclidean distances (Maurer et al., IEEE PAMI 25, 2003) from the structure and from its complement are
    averaged, which puts the surface half-way between the last voxel inside and the first outside. Interpolated between
    the slices, this is shape-based interpolation (Raya and Udupa, IEEE TMI 9, 1990). On curved surfaces the field is up
    to half a voxel too small outside (an alert comes early, not late).
    """
    labels = _cropped(labels, label)
    mask = labels == label
    geometry = np.array([labels.GetOrigin(), labels.GetSpacing()])
    digest = hashlib.sha256(_VERSION)
    digest.update(geometry.tobytes())
    digest.update(np.array(labels.GetSize()).tobytes())
    inside = sitk.GetArrayViewFromImage(mask) != 0
    digest.update(np.packbits(inside).tobytes())
    path = cache / f"{digest.hexdigest()[:32]}.npy"
    hundredths = _from_cache(path, digest.digest(), inside)
    if hundredths is None:
        to_structure = sitk.SignedMaurerDistanceMap(mask, False, False, True)
        to_rest = sitk.SignedMaurerDistanceMap(sitk.Not(mask), False, False, True)
        mm = (sitk.GetArrayFromImage(to_structure) - sitk.GetArrayFromImage(to_rest)) / 2
        hundredths = np.clip(np.rint(mm / _UNIT_MM), -32768, 32767).astype(np.int16)
        # Written under another name first: another process must never read half a file.
        temporary = path.with_suffix(f".{np.random.default_rng().integers(2**40)}.tmp")
        try:
            with temporary.open("wb") as file:
                np.save(file, hundredths)
                file.write(_seal(digest.digest(), hundredths))
            temporary.replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink()
            log.warning("%s: the distance field cannot be cached: %s", path, error)
    return DistanceField(hundredths, geometry[0], geometry[1])


def _cropped(labels: sitk.Image, label: int) -> sitk.Image:
    """The part of the label map around one label: a whole-body map would cost minutes and gigabytes."""
    found = bounds(sitk.GetArrayViewFromImage(labels) == label)
    if found is None:
        raise CaseError(f"label {label} is not in the label map")
    margin = np.ceil(_REACH_MM / np.array(labels.GetSpacing())).astype(int)
    first = np.maximum(found[0] - margin, 0)
    end = np.minimum(found[1] + margin + 1, labels.GetSize())
    return sitk.RegionOfInterest(labels, (end - first).tolist(), first.tolist())


def _from_cache(path: Path, source: bytes, inside: NDArray[np.bool_]) -> NDArray[np.int16] | None:
    """The cached field; None where there is no valid one, and it must be computed.

    It is valid if it has the seal of its content and its source, and is negative in the structure alone.
    """
    try:
        length = path.stat().st_size
    except OSError:
        return None
    reason = "cannot be read"
    # A file of another length is not even opened.
    if _can_be_of(length, inside.size):
        try:
            with path.open("rb") as file:
                field = np.load(file, allow_pickle=False)
                seal = file.read(_SEAL_BYTES + 1)
        except (OSError, ValueError, EOFError):
            field, seal = None, b""
        if field is not None and field.shape == inside.shape and field.dtype == np.int16:
            field = np.ascontiguousarray(field)
            if seal != _seal(source, field):
                reason = "is not the one that was written"
            elif not np.array_equal(field < 0, inside):
                reason = "is of another structure"
            else:
                return field
    log.warning("%s: the cached distance field %s; it is computed again", path, reason)
    return None


def _can_be_of(length: int, voxels: int) -> bool:
    """Whether a cache file has the length that a field of this many voxels needs, with header and seal."""
    return 0 < length - 2 * voxels - _SEAL_BYTES <= _MOST_HEADER_BYTES


def _seal(source: bytes, field: NDArray[np.int16]) -> bytes:
    """Hash of a field and of the hash of its source."""
    digest = hashlib.sha256(source)
    digest.update(field.data)
    return digest.digest()
