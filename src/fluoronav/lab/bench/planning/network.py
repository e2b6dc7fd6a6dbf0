"""A network's vertebrae beside the atlas's, on the same patients and by the same measure."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from fluoronav.case.volume import read_volume
from fluoronav.lab.bench.planning.segmentation import Subject, agreement_of, subjects_in
from fluoronav.planning.anatomy import labels_of_scheme, level_of
from fluoronav.planning.segmentation.atlas.engine import AtlasEngine, AtlasOptions
from fluoronav.planning.segmentation.network import NetworkEngine

Say = Callable[[str], object]
Mask = NDArray[np.bool_]
ALL = "all vertebrae"


@dataclass(frozen=True, slots=True)
class CombinationSettings:
    """How a network's vertebrae get their levels.

    Attributes
    ----------
    reach_mm : float
        How far from the atlas's vertebra its voxels may lie; the atlas's own reach (`atlas/bone.py`).
    """

    reach_mm: float = 6.0


SETTINGS = CombinationSettings()


def measure(data: Path, say: Say, model: Path) -> dict[str, Any]:
    """Compares a network with the atlas.

    Parameters
    ----------
    data : Path
        The folder of real data.
    say : callable
    model : Path
        Folder of the network and its card. Its structures whose names begin with "vertebra" are taken together.

    Raises
    ------
    SegmentationError
        The model cannot be used.
    ValueError
        It has no vertebrae.
    """
    engine = NetworkEngine(model)
    if not any(name.startswith("vertebra") for name in engine.card.labels):
        raise ValueError(
            f"{model}: its card names no structure that begins with 'vertebra'; there is nothing to compare"
        )
    out: dict[str, Any] = {
        "model": {"name": engine.card.name, "version": engine.card.version, "sha256": engine.card.sha256},
        "settings": asdict(SETTINGS),
        "subjects": {},
    }
    for subject in subjects_in(data, say):
        out["subjects"][subject.name] = _subject(subject, data, engine)
    return out


def _subject(subject: Subject, data: Path, engine: NetworkEngine) -> dict[str, Any]:
    ct = read_volume(data / subject.ct)
    cpu = time.process_time()
    network = engine.segment(ct, lambda text, done: None)
    cpu_seconds = time.process_time() - cpu
    found = {s.label for s in network.structures if s.name.startswith("vertebra")}
    extent = np.isin(sitk.GetArrayFromImage(network.labels), list(found))
    drawn = AtlasEngine(AtlasOptions(surroundings=False)).segment(ct, lambda text, done: None)
    voxels, spacing = sitk.GetArrayFromImage(drawn.labels), np.array(ct.image.GetSpacing())[::-1]
    atlas = {s.name: voxels == s.label for s in drawn.structures}
    reference = read_volume(data / subject.labels).image
    truth = sitk.GetArrayFromImage(sitk.Resample(reference, ct.image, sitk.Transform(), sitk.sitkNearestNeighbor, 0))
    levels = {
        s.name: truth == value
        for value, s in labels_of_scheme(subject.scheme).items()  # type: ignore[arg-type]
        if level_of(s.name) not in (None, "S1")
    }
    both = combined(extent, atlas, spacing)
    rows = [_row(ALL, _together(levels), spacing, atlas=_together(atlas), network=extent)]
    rows += [
        _row(name, levels[name], spacing, atlas=atlas[name], network=both[name])
        for name in atlas
        if name in levels and levels[name].any()
    ]
    return {"reference": subject.reference, "network_cpu_seconds": round(cpu_seconds, 1), "structures": rows}


def combined(extent: Mask, atlas: dict[str, Mask], spacing_mm: NDArray[np.float64]) -> dict[str, Mask]:
    """The network's vertebrae, each voxel with the level of the nearest vertebra of the atlas.

    Parameters
    ----------
    extent : ndarray, shape (z, y, x)
        All vertebrae of the network.
    atlas : dict
        Each vertebra of the atlas; none is empty.
    spacing_mm : ndarray, shape (3,)
        z, y, x.

    Returns
    -------
    dict
        A mask for each name of `atlas`.
    """
    away = np.stack([np.asarray(ndimage.distance_transform_edt(~m, sampling=spacing_mm)) for m in atlas.values()])
    nearest = away.argmin(0)
    return {name: extent & (nearest == k) & (away[k] <= SETTINGS.reach_mm) for k, name in enumerate(atlas)}


def _together(masks: dict[str, Mask]) -> Mask:
    return np.any(list(masks.values()), axis=0)


def _row(name: str, truth: Mask, spacing_mm: NDArray[np.float64], **masks: Mask) -> dict[str, Any]:
    """How each of some masks agrees with the reference; an empty mask does not."""
    nothing = {"dice": 0.0, "mean_mm": None, "p95_mm": None}
    found = {who: agreement_of(m, truth, spacing_mm) if m.any() else nothing for who, m in masks.items()}
    return {"name": name, **found}


def better_everywhere(result: dict[str, Any]) -> bool:
    """Whether the network has the higher Dice for every level of every patient: what shipping it asks for."""
    rows = [r for s in result["subjects"].values() for r in s["structures"] if r["name"] != ALL]
    return bool(rows) and all(r["network"]["dice"] > r["atlas"]["dice"] for r in rows)


def table(result: dict[str, Any]) -> str:
    """What was measured, for people."""
    lines = [
        f"network {result['model']['name']} {result['model']['version']} beside the atlas: Dice, mean and 95 % "
        "distance of surfaces (mm); for a level, the network's voxels nearest to that vertebra of the atlas"
    ]
    for name, subject in result["subjects"].items():
        lines.append(f"{name} (reference: {subject['reference']}): {subject['network_cpu_seconds']} s of CPU")
        lines.append(f"  {'':20} {'atlas':>22} {'network':>22}")
        lines += [
            f"  {row['name']:20} {_agreement(row['atlas']):>22} {_agreement(row['network']):>22}"
            for row in subject["structures"]
        ]
    verdict = "is better than" if better_everywhere(result) else "is not better than"
    return "\n".join([*lines, f"the network {verdict} the atlas on every level of every patient"])


def _agreement(found: dict[str, float | None]) -> str:
    if found["mean_mm"] is None:
        return "nothing found"
    return f"{found['dice']:.3f} {found['mean_mm']:6.2f} {found['p95_mm']:6.2f}"
