"""The spine, vertebra by vertebra: from the one that fits best to its neighbours, up and down."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from fluoronav.planning.segmentation.atlas.local import (
    Fit,
    Template,
    affine,
    affine_parts,
    best_start,
    correlation,
    deformed,
    similarity,
    template_from,
)
from fluoronav.planning.segmentation.atlas.scan import Scan
from fluoronav.planning.segmentation.atlas.shipped import BORROWED, WHOLE, Atlas, template_of
from fluoronav.planning.segmentation.atlas.start import Start
from fluoronav.planning.segmentation.engine import Progress

Float = NDArray[np.float64]
ORDER = (*WHOLE, *BORROWED)


@dataclass(frozen=True, slots=True)
class SpineLimits:
    """When a vertebra is taken, and when the chain ends."""

    # Correlation after the demons; vertebrae of patients B, D and L3 reach 0.7 to 0.9, a sacrum or a
    # vertebra that is not there 0.5 or less.
    least_correlation: float = 0.55
    least_inside: float = 0.5  # share of a vertebra inside the scan; less is left out
    whole_inside: float = 0.97  # less is said to be cut by the scan's end
    # Distance of neighbours, as a share of the atlas's in the patient's size.
    step_range: tuple[float, float] = (0.6, 1.6)
    most_changed: float = 0.12  # of a size of a borrowed shape against its neighbour, as a share
    size_range: tuple[float, float] = (0.6, 1.7)  # of the affine part's three singular values


LIMITS = SpineLimits()


@dataclass(frozen=True)
class FoundVertebra:
    """A vertebra of the scan.

    Attributes
    ----------
    level : str
    borrowed : bool
        It has the shape of another level, since the atlas does not hold its own.
    fit : Fit
    body_ct : ndarray, shape (3,)
        Centre of its body, LPS mm.
    """

    level: str
    borrowed: bool
    fit: Fit = field(repr=False)
    body_ct: Float = field(repr=False)

    @property
    def is_cut(self) -> bool:
        return self.fit.share < LIMITS.whole_inside


class Spine:
    """Registers the vertebrae of one scan."""

    def __init__(self, atlas: Atlas, scan: Scan) -> None:
        self._atlas, self._scan = atlas, scan
        self._templates: dict[str, Template] = {}

    def template(self, level: str) -> Template:
        """The atlas's vertebra that stands for a level."""
        name = template_of(level)
        if name not in self._templates:
            self._templates[name] = template_from(self._atlas.ct, self._atlas.mask(name), self._atlas.centres[name])
        return self._templates[name]

    def seed(self, start: Start, level: str | None = None) -> tuple[str, sitk.AffineTransform, float]:
        """The level that the chain begins with, its affine transform, and how well that fits.

        Parameters
        ----------
        start : Start
        level : str, optional
            A whole level of the atlas; by default that which lies whole in the scan and fits best.
        """
        image = self._scan.working
        begins = {name: self._begin(start, name) for name in ((level,) if level else ORDER)}
        shares = {name: correlation(self.template(name), image, T)[1] for name, T in begins.items()}
        levels = [name for name in begins if shares[name] > 0.9] or [max(begins, key=lambda name: shares[name])]
        placed = {name: best_start(self.template(name), image, begins[name]) for name in _spread(levels)}
        fits = {name: correlation(self.template(name), image, placed[name])[0] for name in placed}
        best = max(fits, key=lambda name: fits[name])
        fitted = affine(self.template(best), image, placed[best])
        return best, fitted, correlation(self.template(best), image, fitted)[0]

    def _begin(self, start: Start, level: str) -> sitk.AffineTransform:
        """Where a level begins by a coarse place; a borrowed shape is moved down, vertebra by vertebra."""
        transform = start.transform()
        if level in BORROWED:
            step = self._atlas.body_centres[WHOLE[-1]] - self._atlas.body_centres[WHOLE[-2]]
            transform.Translate((start.sizes * step * (1.05 * (1 + BORROWED.index(level)))).tolist())
        return transform

    def renamed(self, level: str, name: str, T_scan_atlas: sitk.AffineTransform) -> sitk.AffineTransform:
        """The transform of a vertebra that is found to be another level: that level's shape at the same place."""
        matrix, offset = affine_parts(T_scan_atlas)
        body = matrix @ self._atlas.body_centres[template_of(level)] + offset
        offset = body - matrix @ self._atlas.body_centres[template_of(name)]
        moved = sitk.AffineTransform(matrix.ravel().tolist(), offset.tolist())
        template, image = self.template(name), self._scan.working
        return affine(template, image, best_start(template, image, moved))

    def chain(self, level: str, T_scan_atlas: sitk.AffineTransform, progress: Progress) -> list[FoundVertebra]:
        """All vertebrae from a first one on, from head to feet.

        Parameters
        ----------
        level : str
            Of the first; its affine transform is `T_scan_atlas`.
        """
        progress(f"vertebra {level}", 0.2)
        first = self._found(level, T_scan_atlas)
        if first is None:
            return []
        done = 0

        def along(way: int) -> list[FoundVertebra]:
            nonlocal done
            found, current = [], first
            while (following := self._next(current, way)) is not None:
                found.append(following)
                done += 1
                progress(f"vertebra {following.level}", min(0.25 + 0.05 * done, 0.8))
                current = following
            return found

        with ThreadPoolExecutor(2) as both:
            up, down = both.map(along, (-1, 1))
        return [*reversed(up), first, *down]

    def _next(self, current: FoundVertebra, way: int) -> FoundVertebra | None:
        at = ORDER.index(current.level) + way
        if not 0 <= at < len(ORDER):
            return None
        level = ORDER[at]
        template, image = self.template(level), self._scan.working
        start = self._shifted(current, level)
        if correlation(template, image, start)[1] < LIMITS.least_inside:
            return None
        begin = best_start(template, image, start)
        fitted = affine(template, image, begin)
        if level in BORROWED and _changed(begin, fitted) > LIMITS.most_changed:
            # The affine part flattens a shape that is not its own.
            fitted = similarity(template, image, begin)
        found = self._found(level, fitted)
        if found is None or not self._is_neighbour(current, found):
            return None
        return found

    def _shifted(self, current: FoundVertebra, level: str) -> sitk.AffineTransform:
        """Where the neighbour begins: the affine part of the last one, moved on where the shape is borrowed."""
        matrix, offset = affine_parts(current.fit.T_scan_atlas)
        if template_of(level) == template_of(current.level):
            # One vertebra farther; a lumbar one is a tenth higher than the one above it.
            step = self._atlas.body_centres[WHOLE[-1]] - self._atlas.body_centres[WHOLE[-2]]
            offset = offset + matrix @ step * 1.05
        return sitk.AffineTransform(matrix.ravel().tolist(), offset.tolist())

    def _found(self, level: str, fitted: sitk.AffineTransform) -> FoundVertebra | None:
        matrix, offset = affine_parts(fitted)
        sizes = np.linalg.svd(matrix)[1]
        if np.linalg.det(matrix) <= 0 or not (LIMITS.size_range[0] < sizes.min() < sizes.max() < LIMITS.size_range[1]):
            return None
        fit = deformed(self.template(level), self._scan.working, fitted)
        if fit is None or fit.share < LIMITS.least_inside or fit.correlation < LIMITS.least_correlation:
            return None
        centre = matrix @ self._atlas.body_centres[template_of(level)] + offset
        return FoundVertebra(level, level in BORROWED, fit, centre)

    def _is_neighbour(self, one: FoundVertebra, other: FoundVertebra) -> bool:
        pair = sorted((one, other), key=lambda v: ORDER.index(v.level))
        names = (WHOLE[-2], WHOLE[-1]) if pair[1].borrowed else (pair[0].level, pair[1].level)
        step = self._atlas.body_centres[names[1]] - self._atlas.body_centres[names[0]]
        expected = np.linalg.norm(affine_parts(one.fit.T_scan_atlas)[0] @ step)
        apart = pair[1].body_ct - pair[0].body_ct
        low, high = LIMITS.step_range
        return bool(low * expected < np.linalg.norm(apart) < high * expected and apart[2] < 0)


def _spread(levels: list[str], most: int = 4) -> Iterator[str]:
    """At most a few of the levels, evenly spread."""
    yield from (levels[k] for k in np.unique(np.linspace(0, len(levels) - 1, most).round().astype(int)))


def _changed(before: sitk.AffineTransform, after: sitk.AffineTransform) -> float:
    """The largest change of one of three sizes, as a share."""
    sizes = [np.linalg.svd(affine_parts(t)[0])[1] for t in (before, after)]
    return float(np.abs(sizes[1] / sizes[0] - 1).max())
