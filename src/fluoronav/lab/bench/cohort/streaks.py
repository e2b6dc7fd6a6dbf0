"""A CT of a patient who has screws and rods already, with the streaks that steel leaves in it.

The scanner is simulated slice by slice: paths through soft tissue, bone, iodine and steel in parallel beams, the signal
of a spectrum with its quantum noise, and a correction for water alone, as scanners apply it. What that differs from
the sum of attenuations at one energy is reconstructed by filtered backprojection (Kak and Slaney, Principles of
Computerized Tomographic Imaging, 1988, chapter 3) and added to the CT.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from fluoronav.lab.bench.cohort.hardware import Cylinder, screws_and_rods
from fluoronav.lab.bench.cohort.motion import Motion
from fluoronav.lab.bench.cohort.people import Person, Region
from fluoronav.lab.bench.cohort.physics import (
    AIR_HU,
    CT_KEV,
    DENSITY_G_CM3,
    IRON,
    MATERIALS,
    MOST_HU,
    Beam,
    Tube,
    coded,
    densities_g_cm3,
    mass_attenuation_cm2_g,
)  # fmt: skip

Float = NDArray[np.float64]
Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class ScannerSettings:
    """The CT scanner; all chosen, as for a trunk."""

    kvp: float = 120.0
    aluminium_mm: float = 8.0
    copper_mm: float = 0.5
    csi_mg_cm2: float = 900.0  # stands for the detector's ceramic, which absorbs nearly everything
    photons: float = 2e5  # in an open ray, per view
    least_photons: float = 3.0  # to which the electronics' noise bounds a ray behind metal
    views: int = 360  # over half a turn
    left: float = 0.35  # share of the error in rays through metal that a scanner's reduction of artefacts leaves
    pixel_mm: float = 1.0  # finer slices are computed on a grid of this


SETTINGS = ScannerSettings()


def with_screws(person: Person, region: Region, screws: int) -> sitk.Image:
    """The person's CT with screws and rods, HU in the same grid: see :func:`hardware.screws_and_rods`."""
    image = person.ct.image
    steel = metal_share(image, screws_and_rods(person, region, screws, Motion({}, None)))
    hu = sitk.GetArrayFromImage(image).astype(np.float32)
    spacing_mm = image.GetSpacing()[0]
    shrink = min(spacing_mm / SETTINGS.pixel_mm, 1.0)
    tube = Tube(SETTINGS.kvp, SETTINGS.aluminium_mm, SETTINGS.copper_mm, SETTINGS.csi_mg_cm2)
    beam, rng = Beam.of(tube), np.random.default_rng(screws)
    for k in np.flatnonzero(steel.any((1, 2))):
        streaks = slice_streaks_hu(_resized(hu[k], shrink), _resized(steel[k], shrink), spacing_mm / shrink, beam, rng)
        hu[k] += cv2.resize(streaks, hu[k].shape[::-1], interpolation=cv2.INTER_LINEAR)
        hu[k] = (1 - steel[k]) * hu[k] + steel[k] * MOST_HU
    out = sitk.GetImageFromArray(np.rint(np.clip(hu, AIR_HU, MOST_HU)).astype(np.int16))
    out.CopyInformation(image)
    return out


def metal_share(image: sitk.Image, shapes: list[Cylinder]) -> Float32:
    """Share of each voxel of an image that cylinders fill, shape (z, y, x)."""
    size, spacing = np.array(image.GetSize()), np.array(image.GetSpacing())
    axes = np.array(image.GetDirection()).reshape(3, 3) * spacing
    share = np.zeros(size[::-1], np.float32)
    for shape in shapes:
        begin, end = (np.linalg.solve(axes, np.array(p) - image.GetOrigin()) for p in (shape.begin_ct, shape.end_ct))
        room = shape.radius_mm / spacing + 1
        low = np.clip(np.floor(np.minimum(begin, end) - room), 0, size).astype(int)
        high = np.clip(np.ceil(np.maximum(begin, end) + room) + 1, 0, size).astype(int)
        if (high <= low).any():
            continue
        grids = np.meshgrid(*(np.arange(a, b) for a, b in zip(low[::-1], high[::-1], strict=True)), indexing="ij")
        away = (np.stack(grids[::-1], -1) - begin) @ axes.T
        axis = axes @ (end - begin)
        length = float(np.linalg.norm(axis))
        along = away @ (axis / length)
        across = np.sqrt(np.maximum((away**2).sum(-1) - along**2, 0))
        edge = float(spacing.mean())
        inside = np.clip(0.5 + (shape.radius_mm - across) / edge, 0, 1)
        inside *= np.clip(0.5 + np.minimum(along, length - along) / edge, 0, 1)
        part = share[tuple(slice(a, b) for a, b in zip(low[::-1], high[::-1], strict=True))]
        np.maximum(part, inside, out=part)
    return share


def slice_streaks_hu(hu: Float32, steel: Float32, pixel_mm: float, beam: Beam, rng: np.random.Generator) -> Float32:
    """What a scanner adds to one slice because of its steel, HU.

    Parameters
    ----------
    hu : ndarray of float32, shape (rows, cols)
    steel : ndarray of float32, shape (rows, cols)
        Share of each pixel that is steel.
    pixel_mm : float
    beam : Beam
    rng : numpy.random.Generator
        Of the quantum noise.
    """
    densities = np.zeros((*hu.shape, len(MATERIALS)), np.float32)
    densities[..., :IRON] = densities_g_cm3()[coded(hu)] * (1 - steel[..., None])
    densities[..., IRON] = DENSITY_G_CM3["iron"] * steel
    paths = sinogram(densities, pixel_mm)
    shape = paths.shape[:2]
    signal = beam.transmitted(np.ascontiguousarray(paths.reshape(-1, len(MATERIALS)).T))
    counts = beam.noise_gain * rng.poisson(signal * SETTINGS.photons / beam.noise_gain)
    measured = -np.log(np.maximum(counts, SETTINGS.least_photons) / SETTINGS.photons)
    at_one_energy = np.array([mass_attenuation_cm2_g(m, CT_KEV) for m in MATERIALS])
    error = _corrected_for_water(measured, beam).reshape(shape) - paths @ at_one_energy
    # Rays without steel are those of the CT as it is.
    error[paths[..., IRON] == 0] = 0
    water = float(mass_attenuation_cm2_g("water", CT_KEV))
    return (1000 / water * SETTINGS.left * reconstructed(error, pixel_mm, hu.shape)).astype(np.float32)


def _corrected_for_water(attenuation: Float, beam: Beam) -> Float:
    """Attenuation as the same water would have it at the CT's mean energy."""
    g_cm2 = np.linspace(0, 200, 801)
    paths = np.zeros((len(MATERIALS), len(g_cm2)), np.float32)
    paths[0] = g_cm2
    known = -np.log(np.maximum(beam.transmitted(paths), 1e-30))
    return np.interp(attenuation, known, g_cm2 * float(mass_attenuation_cm2_g("soft", CT_KEV)))


def _turned(image: NDArray, deg: float, side: int) -> NDArray:
    rows, cols = image.shape[:2]
    turn = cv2.getRotationMatrix2D(((cols - 1) / 2, (rows - 1) / 2), deg, 1.0)
    turn[:, 2] += (side - cols) / 2, (side - rows) / 2
    return cv2.warpAffine(image, turn, (side, side), flags=cv2.INTER_LINEAR)


def sinogram(image: Float32, pixel_mm: float) -> Float32:
    """Parallel projections of a slice over half a turn: sums times cm, shape (views, rays, channels)."""
    side = int(np.ceil(np.hypot(*image.shape[:2])))
    every = (_turned(image, deg, side).sum(0) for deg in _angles_deg())
    return np.stack([row.reshape(side, -1) for row in every]).astype(np.float32) * np.float32(pixel_mm / 10)


def reconstructed(projections: NDArray, pixel_mm: float, shape: tuple[int, ...]) -> Float:
    """The slice whose :func:`sinogram` it is (views, rays), per cm; filter of Ramachandran and Lakshminarayanan."""
    views, side = projections.shape
    cm = pixel_mm / 10
    k = np.arange(-side + 1, side)
    ramp = np.zeros(len(k))
    ramp[k == 0] = 1 / (4 * cm**2)
    ramp[k % 2 == 1] = -1 / (np.pi * k[k % 2 == 1] * cm) ** 2
    n = 4 * side
    filtered = np.fft.irfft(np.fft.rfft(projections, n) * np.fft.rfft(ramp, n), n)[:, side - 1 : 2 * side - 1] * cm
    out = np.zeros((side, side))
    for row, deg in zip(filtered.astype(np.float32), _angles_deg(views), strict=True):
        out += _turned(np.broadcast_to(row, (side, side)).copy(), -deg, side)
    down, right = ((side - n) // 2 for n in shape)
    return out[down : down + shape[0], right : right + shape[1]] * np.pi / views


def _angles_deg(views: int | None = None) -> Float:
    return np.linspace(0, 180, views or SETTINGS.views, endpoint=False)


def _resized(image: Float32, factor: float) -> Float32:
    if factor == 1.0:
        return image
    return np.asarray(cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA), np.float32)
