"""Settings of the registration of still images."""

from __future__ import annotations

from dataclasses import dataclass

from fluoronav.imaging.registration.search import GRID_SIDE
from fluoronav.imaging.registration.search import SETTINGS as SEARCH


@dataclass(frozen=True)
class Round:
    """Refinement at one resolution."""

    side: int  # longer side of the image, pixels
    patch: int  # side of a patch, pixels
    patches: int  # maximum number
    iterations: int
    kept: int | None  # number of hypotheses that are refined; None: all


@dataclass(frozen=True)
class OfflineSettings:
    """Resolutions, search and acceptance. Chosen on the wrist's X-rays (`bench registration`), where not said."""

    # Coarse to fine, for a segmented bone and for a whole trunk. A trunk lets few photons through: its rounds are
    # coarser, since small patches of a fine image would be noise.
    bone_rounds: tuple[Round, ...] = (
        Round(220, 11, 40, 6, None),
        Round(440, 11, 80, 6, 10),
        Round(880, 11, 120, 5, 4),
    )
    trunk_rounds: tuple[Round, ...] = (Round(128, 12, 50, 5, None), Round(256, 15, 150, 8, 6))
    bone_apart: float = 0.7  # distance of patches as a fraction of their size; those of a small bone overlap
    # Error of a start, 1 sigma: the range from which the registration converges.
    start_deg: float = 10.0
    start_mm: float = 10.0
    # 1 sigma of the depth about the start's in one view. Without it, structures that the model of a small bone lacks
    # pull the depth by tens of mm.
    one_view_depth_mm: float = 2.0
    # Minimum mean correlation over all patches. On the wrist: right poses 0.81 to 0.86, wrong ones below 0.7, a
    # mirrored radius 0.73 in two views.
    accepted_fit: float = 0.78
    # Minimum difference of a bone's fit and its mirror image's in one view. On the wrist: 0.024 and 0.016 in the first
    # view; within 0.003 of 0 in the second, where the two cannot be distinguished.
    mirror_margin: float = 0.01
    # Search: side of the matched images (pixels) and neighbourhood in which they are normalised (pixels).
    bone_search: tuple[int, float] = (192, 2.5)
    trunk_search: tuple[int, float] = (GRID_SIDE, SEARCH.grid_sigma_px)
    kept_of_search: int = 90  # hypotheses of each view; on the wrist a right one was always among the first 84
    # With several views, so many of each are also tried at the depth at which the other views fit.
    depth_tried: int = 40
    depth_step_mm: float = 8.0
    # Hypotheses whose neighbours are refined, best first, until one is accepted; their minimum distance.
    max_neighbourhoods: int = 4
    neighbourhood_deg: float = 8.0
    neighbourhood_mm: float = 3.0
    # Hypotheses this close have converged to the same pose.
    same_deg: float = 2.0
    same_mm: float = 1.0


SETTINGS = OfflineSettings()
