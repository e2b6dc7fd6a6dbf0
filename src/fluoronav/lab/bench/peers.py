"""The projector compared with RTK's and DiffDRR's: same volume and view, same process, in turns."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fluoronav.case import Case
from fluoronav.geometry import Camera
from fluoronav.imaging.projector import BLOCK, AttenuationGrid, Projector, padded_rays
from fluoronav.imaging.registration.model import tissue_grid
from fluoronav.lab import machine

Float32 = NDArray[np.float32]

_SIDE, _PIXEL_MM = 256, 300 / 256
_SOURCE_TO_ISOCENTRE_MM, _SOURCE_TO_DETECTOR_MM, _GANTRY_DEG = 620.0, 1000.0, 17.0
_THREADS = 2  # chosen: every computer has them
_DIFFDRR_EVERY = 4  # rounds, since one of its turns takes as long as many of the others'


class PeersMissing(RuntimeError):
    """The extra `peers` is not installed."""


def bench_peers(case: Case, rounds: int, say: Callable[[str], None] = lambda text: None) -> dict[str, Any]:
    """Times one 256 x 256 DRR of the case's CT on every projector.

    Parameters
    ----------
    case : Case
    rounds : int
        Turns of each projector; the medians are reported.
    say : callable
        Called with the progress, in words.

    Returns
    -------
    dict
        ``projector``: milliseconds, samples per second on one core, ratios, difference from RTK's image; ``machine``.

    Raises
    ------
    PeersMissing
    """
    try:
        import diffdrr  # noqa: F401  # pyright: ignore[reportMissingImports, reportUnusedImport]
        import itk  # pyright: ignore[reportMissingImports]
        from itk import RTK  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise PeersMissing(f"{error}: install the other projectors: pip install 'fluoronav[peers]'") from error
    grid = _centred(tissue_grid(case.ct, np.mean(case.ct.corners_ct(), axis=0), 400.0, 1.0, 8.0))
    say(f"volume of {' x '.join(map(str, grid.voxels.shape[::-1]))} voxels, {_SIDE} x {_SIDE} rays, {_THREADS} threads")
    itk.MultiThreaderBase.SetGlobalDefaultNumberOfThreads(_THREADS)
    rtk_image, rtk_turn, T_camera_ct = _rtk(itk, RTK, grid)
    diffdrr_turn = _diffdrr(grid)

    camera = Camera(_SIDE, _SIDE, _K())
    directions, count = padded_rays(camera.rays(camera.pixel_grid()))
    ours, alone = Projector(grid, threads=_THREADS), Projector(grid, threads=1)
    plain = np.empty(directions.shape[1], np.float32)
    all_seven = np.empty((7, directions.shape[1]), np.float32)
    turns: dict[str, Callable[[], object]] = {
        "fluoronav": lambda: ours.line_integrals(T_camera_ct, directions, plain),
        "derivatives": lambda: ours.line_integrals_and_derivatives(T_camera_ct, directions, grid.centre_ct, all_seven),
        "rtk": rtk_turn,
        "one_core": lambda: alone.line_integrals(T_camera_ct, directions, plain),
    }
    ms = _in_turns(turns, diffdrr_turn, rounds, say)
    image = np.flipud(plain[:count].reshape(_SIDE, _SIDE))
    samples = _samples(grid, T_camera_ct, directions)
    difference = float(np.abs(image - rtk_image).mean() / rtk_image.mean())
    return {
        "projector": {
            "fluoronav_ms": ms["fluoronav"],
            "derivatives_ms": ms["derivatives"],
            "rtk_ms": ms["rtk"],
            "diffdrr_ms": ms["diffdrr"],
            "samples_per_second_per_core": samples / ms["one_core"] * 1000,
            "rtk_ratio": ms["rtk"] / ms["fluoronav"],
            "diffdrr_ratio": ms["diffdrr"] / ms["fluoronav"],
            "derivatives_ratio": ms["derivatives"] / ms["fluoronav"],
            "difference_from_rtk": difference,
            "one_core_ms": ms["one_core"],
            "rays": _SIDE**2,
            "voxels": list(grid.voxels.shape[::-1]),
            "threads": _THREADS,
            "rounds": rounds,
        },
        "machine": machine.description(),
    }


def _in_turns(
    turns: dict[str, Callable[[], object]], diffdrr: Callable[[], object], rounds: int, say: Callable[[str], None]
) -> dict[str, float]:
    """Median time of each projector, ms."""
    times: dict[str, list[float]] = {name: [] for name in (*turns, "diffdrr")}
    for turn in (*turns.values(), diffdrr):
        turn()  # compiles, allocates
    for n in range(rounds):
        for name, turn in turns.items():
            times[name].append(_ms(turn))
        if n % _DIFFDRR_EVERY == 0:
            times["diffdrr"].append(_ms(diffdrr))
        say(f"round {n + 1} of {rounds}")
    return {name: float(np.median(values)) for name, values in times.items()}


def table(result: dict[str, Any]) -> str:
    """The figures as text."""
    p = result["projector"]
    rows = [
        ("plain DRR, two cores", p["fluoronav_ms"], ""),
        ("with six derivatives", p["derivatives_ms"], f"{p['derivatives_ratio']:.2f} times the plain time"),
        ("RTK, Joseph", p["rtk_ms"], f"{p['rtk_ratio']:.1f} times ours; they differ by {p['difference_from_rtk']:.4%}"),
        ("DiffDRR, plain", p["diffdrr_ms"], f"{p['diffdrr_ratio']:.0f} times ours"),
    ]  # fmt: skip
    lines = [f"{name:24}{ms:9.1f} ms   {more}" for name, ms, more in rows]
    return "\n".join([*lines, f"{p['samples_per_second_per_core'] / 1e6:.0f} million samples a second on one core"])


def _ms(turn: Callable[[], object]) -> float:
    start = time.perf_counter()
    turn()
    return (time.perf_counter() - start) * 1000


def _K() -> NDArray[np.float64]:
    f, c = _SOURCE_TO_DETECTOR_MM / _PIXEL_MM, (_SIDE - 1) / 2
    return np.array([[f, 0, c], [0, f, c], [0, 0, 1.0]])


def _centred(grid: AttenuationGrid) -> AttenuationGrid:
    """The grid centred at 0, with front to back along z, the direction of RTK's central ray."""
    voxels = np.ascontiguousarray(grid.voxels.transpose(1, 0, 2))
    origin = -grid.spacing_mm * (np.array(voxels.shape[::-1]) - 1) / 2
    return AttenuationGrid(voxels, origin, grid.spacing_mm)


def _samples(grid: AttenuationGrid, T_camera_ct: NDArray, directions: Float32) -> float:
    """Number of samples of the ray march: the 64 rays of a block step together through every slice that one meets."""
    ones = Projector(AttenuationGrid(np.ones_like(grid.voxels), grid.origin_ct, grid.spacing_mm))
    length = np.empty(directions.shape[1], np.float32)
    ones.line_integrals(T_camera_ct, directions, length)
    rays = np.stack([*directions, np.ones(directions.shape[1])])
    along = np.abs(T_camera_ct[:3, :3].T @ (rays / np.linalg.norm(rays, axis=0))).max(0)
    slices = (length * along / grid.spacing_mm).reshape(-1, BLOCK)
    return float(slices.max(axis=1).sum() * BLOCK)


def _rtk(itk, RTK, grid: AttenuationGrid):
    """RTK's image, a call that renders it again, and the view's pose."""
    kind = itk.Image[itk.F, 3]
    volume = itk.image_from_array(grid.voxels)
    volume.SetSpacing([grid.spacing_mm] * 3)
    volume.SetOrigin([float(x) for x in grid.origin_ct])
    geometry = RTK.ThreeDCircularProjectionGeometry.New()
    geometry.AddProjection(_SOURCE_TO_ISOCENTRE_MM, _SOURCE_TO_DETECTOR_MM, _GANTRY_DEG)
    empty = RTK.ConstantImageSource[kind].New()
    empty.SetSize([_SIDE, _SIDE, 1])
    empty.SetSpacing([_PIXEL_MM, _PIXEL_MM, 1.0])
    corner = -(_SIDE - 1) / 2 * _PIXEL_MM
    empty.SetOrigin([corner, corner, 0.0])
    empty.Update()
    joseph = RTK.JosephForwardProjectionImageFilter[kind, kind].New()
    joseph.InPlaceOff()
    joseph.SetGeometry(geometry)
    joseph.SetInput(0, empty.GetOutput())
    joseph.SetInput(1, volume)
    joseph.Update()
    image = itk.array_from_image(joseph.GetOutput())[0].copy()
    # In RTK's rotated frame the source is at z = +SID and the detector lies across z, u along x and v along y.
    turned = np.asarray(itk.array_from_matrix(geometry.GetRotationMatrix(0)))[:3, :3]
    T = np.eye(4)
    T[:3, :3] = np.diag([1.0, -1, -1]) @ turned
    T[:3, 3] = [0, 0, _SOURCE_TO_ISOCENTRE_MM]

    def turn() -> None:
        joseph.Modified()
        joseph.Update()

    return image, turn, T


def _diffdrr(grid: AttenuationGrid) -> Callable[[], object]:
    """A call that renders DiffDRR's image of the same volume from the same distance, without gradients."""
    import torch  # pyright: ignore[reportMissingImports]
    import torchio  # pyright: ignore[reportMissingImports]
    from diffdrr.data import read  # pyright: ignore[reportMissingImports]
    from diffdrr.drr import DRR  # pyright: ignore[reportMissingImports]

    torch.set_num_threads(_THREADS)
    affine = np.diag([grid.spacing_mm] * 3 + [1.0])
    volume = torchio.ScalarImage(tensor=torch.from_numpy(grid.voxels.transpose(2, 1, 0).copy())[None], affine=affine)
    drr = DRR(read(volume), sdd=_SOURCE_TO_DETECTOR_MM, height=_SIDE, delx=_PIXEL_MM)
    turn = torch.tensor([[0.0, 0.0, np.deg2rad(_GANTRY_DEG)]], dtype=torch.float32)
    shift = torch.tensor([[0.0, _SOURCE_TO_ISOCENTRE_MM, 0.0]])

    def make() -> object:
        with torch.no_grad():
            return drr(turn, shift, parameterization="euler_angles", convention="ZXY")

    return make
