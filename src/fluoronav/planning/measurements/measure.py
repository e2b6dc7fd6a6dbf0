"""Measures everything that a label map holds."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import SimpleITK as sitk

from fluoronav.planning.measurements.errors import Refused
from fluoronav.planning.measurements.finding_flags import (
    cut_flags,
    density_flags,
    implant_flags,
    piece_flags,
    swapped_pairs,
    vessel_flags,
)
from fluoronav.planning.measurements.legs import measure_legs
from fluoronav.planning.measurements.mask import StructureMask, masks_of
from fluoronav.planning.measurements.results import Progress, Results
from fluoronav.planning.measurements.spine_flags import flag, spine_flags
from fluoronav.planning.measurements.vertebrae import measure_vertebrae
from fluoronav.planning.measurements.volumes import (
    Margin,
    diameters,
    gap,
    grown,
    margin_of,
    margin_to_cuts,
    volume_cm3,
)
from fluoronav.planning.plan.schema import Cut, Item, Resection

_LESIONS = ("lesion", "tumor", "tumour", "nodule", "metastasis")
_RESECTED = "resection"
_RECIST = "longest in an axial slice, and longest across it there (RECIST 1.1, Eisenhauer 2009)"
_GAP = "shortest between the faces of the voxels"


class MeasureError(ValueError):
    """Labels that cannot be measured as a whole; the text says what is wrong and what to do."""


@dataclass(frozen=True)
class Wanted:
    """What is asked for besides what is always measured.

    Attributes
    ----------
    cobb : sequence of (str, str)
        Levels, the upper first.
    lesions : sequence of str
        Structures that are lesions, whatever their name.
    planned : sequence of Item
        Items of the plan: resections and cuts have margins.
    """

    cobb: Sequence[tuple[str, str]] = ()
    lesions: Sequence[str] = ()
    planned: Sequence[Item] = ()


def measure(
    labels: sitk.Image, names: Mapping[int, str], ct: sitk.Image | None = None, wanted: Wanted | None = None,
    progress: Progress = lambda text, share: None,
) -> Results:  # fmt: skip
    """Measures a label map.

    Parameters
    ----------
    labels : SimpleITK.Image
        Whole numbers; origin, spacing and direction in LPS mm.
    names : mapping of int to str
        Names of structures by label value (:mod:`fluoronav.planning.anatomy`).
    ct : SimpleITK.Image, optional
        HU, on any grid of the same frame.
    wanted : Wanted, optional
    progress : callable
        Takes what is being done and the share done, 0 to 1.

    Raises
    ------
    MeasureError
        No structure is there, or left and right are swapped.
    """
    began = time.perf_counter()
    wanted = wanted or Wanted()
    results = Results()
    masks = masks_of(labels, names.items())
    if not masks:
        raise MeasureError("the label map holds none of the named structures: is it empty, or of another scheme?")
    check_sides(masks)
    for name in sorted(set(wanted.lesions) - set(masks)):
        raise MeasureError(f"{name!r} is no structure of the label map; there are {', '.join(sorted(masks))}")
    progress("volumes", 0.0)
    _volumes(masks, results)
    lesions = [n for n in masks if n in wanted.lesions or n.startswith(_LESIONS)]
    for lesion in lesions:
        _lesion(masks, lesion, lesions, results)
        _margins(masks, lesion, wanted.planned, results)
    vertebrae = measure_vertebrae(masks, ct, wanted.cobb, results, progress)
    measure_legs(masks, results, progress)
    progress("flags", 0.95)
    results.flags += [*cut_flags(masks), *piece_flags(masks), *spine_flags(masks, vertebrae), *vessel_flags(masks)]
    results.flags += density_flags(results.items)
    if ct is not None:
        results.flags += implant_flags(masks, ct)
    results.seconds = time.perf_counter() - began
    return results


def check_sides(masks: Mapping[str, StructureMask]) -> None:
    """Raises :class:`MeasureError` where left structures lie on the right: a mirrored label map."""
    swapped, pairs = swapped_pairs(masks)
    if swapped and 2 * len(swapped) > pairs:
        raise MeasureError(
            f"{len(swapped)} of {pairs} structures with a side lie on the other side of the patient ({swapped[0]} lies "
            "to the right of its counterpart): the label map is mirrored, or its orientation is wrong"
        )


def _volumes(masks: Mapping[str, StructureMask], results: Results) -> None:
    for name, mask in masks.items():
        with results.refusing("volume", name):
            if mask.at_edge:
                raise Refused(
                    f"{name}: is cut off by the edge of the volume towards the {' and the '.join(mask.at_edge)}"
                )
            value, sigma = volume_cm3(mask)
            results.add(
                "volume", name, value, "cm3", sigma, "voxels, without smoothing", mask.points_ct().mean(0)[None]
            )
    swapped, pairs = swapped_pairs(masks)
    for name in swapped if 2 * len(swapped) <= pairs else []:
        results.flags.append(flag("sides", f"{name} lies to the right of its counterpart: are they swapped?", name))


def _lesion(masks: Mapping[str, StructureMask], name: str, lesions: Sequence[str], results: Results) -> None:
    lesion = masks[name]
    with results.refusing("recist", name):
        if lesion.at_edge:
            raise Refused(f"{name}: is cut off by the edge of the volume; its diameters are not known")
        found = diameters(lesion)
        results.add("recist_long", name, found.long_mm, "mm", found.sigma_mm, _RECIST, found.long_ct)
        results.add("recist_short", name, found.short_mm, "mm", found.sigma_mm, _RECIST, found.short_ct)
    for other, mask in masks.items():
        if other not in lesions and not other.startswith(_RESECTED):
            near = gap(lesion, mask)
            sigma = 0.29 * float(np.hypot(lesion.spacing_mm.mean(), mask.spacing_mm.mean()))
            results.add(f"distance_{other}"[:40], name, near.distance_mm, "mm", sigma, _GAP, near.points_ct)


def _margins(masks: Mapping[str, StructureMask], name: str, planned: Sequence[Item], results: Results) -> None:
    """Margins of drawn resections (structures), planned ones (a distance) and cuts."""
    lesion = masks[name]
    todo: list[tuple[str, Callable[[], Margin]]] = [
        (n, partial(margin_of, lesion, m)) for n, m in masks.items() if n.startswith(_RESECTED)
    ]
    todo += [(i.id, partial(_planned, lesion, i)) for i in planned if isinstance(i, Resection) and i.lesion == name]
    if cuts := tuple(item for item in planned if isinstance(item, Cut)):
        todo.append(("cuts", partial(margin_to_cuts, lesion, cuts)))
    for what, make in todo:
        with results.refusing(f"margin_{what}", name):
            margin = make()
            sigma = 0.29 * float(lesion.spacing_mm.mean())
            method = "from the lesion's surface to that of what is taken out; negative: cut into"
            results.add(f"margin_least_{what}"[:40], name, margin.least_mm, "mm", sigma, method, margin.points_ct)
            results.add(f"margin_5pc_{what}"[:40], name, margin.low_mm, "mm", sigma, f"5 % quantile, {method}")


def _planned(lesion: StructureMask, item: Resection) -> Margin:
    return margin_of(lesion, grown(lesion, item.margin_mm))
