"""How a pose is followed: the numbers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TrackingSettings:
    """How a pose is followed.

    Attributes
    ----------
    replace_deg, replace_mm : float
        Patches are placed anew when the pose has moved by this much since; chosen.
    still_mm : float
        Iterations at a resolution end when a step is smaller; chosen: a still patient costs one, a jump several.
    most_coarse, most_fine : int
        Iterations at each resolution at the most.
    lost_after_frames : int
        So many implausible measurements in a row, and the pose is given up.
    settling_frames : int
        A pose that was just found is refined for so long without a prior on its motion.
    check_every_s : float
        How often the pose is compared with the whole field, beside the frame path.
    most_slower : float
        One slow iteration counts as so many times what was expected at the most: a computer that stood still is no
        slower since.
    learned : float
        Weight of the newest iteration in the expected time.
    forgets : float
        Factor of the expected time for each frame in which no iteration is done.
    first_iteration_ms, first_render_ms : float
        What an iteration, and the render of a keyframe, are expected to take before the first.
    """

    replace_deg: float = 1.5
    replace_mm: float = 3.0
    still_mm: float = 0.3
    most_coarse: int = 4
    most_fine: int = 3
    lost_after_frames: int = 2
    settling_frames: int = 3
    check_every_s: float = 1.0
    most_slower: float = 3.0
    learned: float = 0.1
    forgets: float = 0.9
    first_iteration_ms: float = 1.0
    first_render_ms: float = 6.0


SETTINGS = TrackingSettings()
