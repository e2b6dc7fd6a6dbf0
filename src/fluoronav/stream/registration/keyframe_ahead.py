"""The next keyframe, rendered beside the frame path before a frame needs it."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fluoronav.geometry import inverse
from fluoronav.stream.registration.patch_sets import Patches, PatchSets

Float = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class AheadSettings:
    """When the next keyframe is rendered, and where.

    Attributes
    ----------
    ask_at : float
        Distance from the keyframe, as a fraction of its reach, from which on the next is rendered. Chosen: a frame or
        two before the edge at the speed of a breath.
    first_lag : float
        Frames that a render takes, before the first. Chosen.
    most_lag : float
        Motion is not extrapolated over more frames. Chosen: it is not steady for longer.
    learned : float
        Weight of the newest render in the lag. Chosen.
    """

    ask_at: float = 0.5
    first_lag: float = 1.0
    most_lag: float = 3.0
    learned: float = 0.2


SETTINGS = AheadSettings()


def extrapolated(T_before: Float, T_now: Float, frames: float) -> Float:
    """The pose some frames on, if the motion from one frame to the next goes on.

    Parameters
    ----------
    T_before, T_now : ndarray, shape (4, 4)
        Of the last two frames, patient to camera, mm.
    frames : float
        Whole frames are whole motions; the rest is a fraction of one, to first order.
    """
    motion = T_now @ inverse(T_before)
    T = np.array(T_now)
    for _ in range(int(frames)):
        T = motion @ T
    rest = frames - int(frames)
    if rest > 0:
        part = np.eye(4) + rest * (motion - np.eye(4))
        u, _, vt = np.linalg.svd(part[:3, :3])
        part[:3, :3] = u @ vt
        T = part @ T
    return T


class KeyframeAhead:
    """Asks for the next keyframe and takes it; used by the frame path alone.

    The thread that renders has the frame path's priority: without a keyframe there is no pose.

    Parameters
    ----------
    patch_sets : PatchSets
    """

    def __init__(self, patch_sets: PatchSets) -> None:
        self._sets = patch_sets
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="keyframes")
        self._pending: Future[None] | None = None
        self._pending_of: Patches | None = None
        self._waited, self._lag = 0, SETTINGS.first_lag
        self._T_before: Float | None = None

    def begin(self) -> None:
        """A pose has just been found: nothing is known of its motion."""
        self._T_before = None

    def take(self, patches: Patches, T_camera_ct: Float) -> None:
        """Goes on with the keyframe that has been rendered since the last frame, where it is nearer to the pose."""
        if self._pending is None:
            return
        self._waited += 1
        if not self._pending.done():
            return
        pending, self._pending = self._pending, None
        pending.result()
        self._lag += SETTINGS.learned * (min(self._waited, SETTINGS.most_lag) - self._lag)
        if self._pending_of is patches:
            self._sets.keyframes.take_next(patches.fine, T_camera_ct)

    def ask(self, patches: Patches, T_camera_ct: Float) -> None:
        """Has the next keyframe rendered, where the pose nears the edge of the one in use.

        Parameters
        ----------
        patches : Patches
            In use.
        T_camera_ct : ndarray, shape (4, 4)
            Measured in this frame.
        """
        T_before, self._T_before = self._T_before, np.array(T_camera_ct)
        if self._pending is not None:
            return
        keyframes, T_next = self._sets.keyframes, T_camera_ct
        if T_before is not None:
            # Half a frame further: it is used in the frame after the render, and in those that follow.
            T_next = extrapolated(T_before, T_camera_ct, min(self._lag, SETTINGS.most_lag) + 0.5)
            if keyframes.separation(T_camera_ct, T_next) > 1:
                T_next = extrapolated(T_before, T_camera_ct, 1.0)
        if (
            max(keyframes.distance(patches.fine, T_camera_ct), keyframes.distance(patches.fine, T_next))
            > SETTINGS.ask_at
        ):
            self._waited, self._pending_of = 0, patches
            self._pending = self._thread.submit(self._sets.render_next, patches, T_next)

    def wait(self) -> None:
        """Returns when nothing is being rendered; for benches and tests, never on the frame path."""
        if self._pending is not None:
            self._pending.exception()

    def close(self) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)
