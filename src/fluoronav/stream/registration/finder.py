"""What the registration does beside the frame path: it searches, compares poses, and catches up with the stream."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fluoronav.geometry import inverse
from fluoronav.imaging.registration.confidence import LOST_AGREEMENT, MIN_PATCHES, TRACKING_AGREEMENT, TRACKING_SCORE
from fluoronav.imaging.registration.gauss_newton import PoseEstimate
from fluoronav.imaging.registration.handedness import MirrorImage, told_hand
from fluoronav.imaging.registration.layered_fit import LayeredPose
from fluoronav.imaging.registration.search import COARSE_SIDE, SEARCH_SIDES, Hypothesis, InitialSearch
from fluoronav.stream import reasons
from fluoronav.stream.frame import FrameRecord
from fluoronav.stream.registration.target import TargetBone

Float = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class FinderSettings:
    """How often the background jobs try.

    Attributes
    ----------
    catch_up_tries : int
        Newer frames on which a pose is refined before it is given up, one of them after the comparison with the mirror
        image. Chosen; no source is recorded.
    mirrored_every : int
        The mirror image is searched after every such number of failed searches. Chosen; no source is recorded.
    """

    catch_up_tries: int = 4
    mirrored_every: int = 2


SETTINGS = FinderSettings()


@dataclass(frozen=True)
class Snapshot:
    """A frame for a background job: copies, since the originals are overwritten with the next frame.

    Attributes
    ----------
    pyramid, anatomy_mask
        As in :class:`fluoronav.stream.frame.FrameRecord`.
    T_camera_room : ndarray, shape (4, 4), or None
        Where the C-arm stood, when its joints are known.
    """

    pyramid: dict[int, NDArray[np.float32]]
    anatomy_mask: NDArray[np.bool_]
    T_camera_room: Float | None

    @classmethod
    def of(cls, frame: FrameRecord, T_camera_room: Float | None) -> Snapshot:
        """Copies what the search reads of a frame's pyramid (0.3 MB)."""
        assert frame.anatomy_mask is not None
        return cls(
            {side: frame.pyramid[side].copy() for side in SEARCH_SIDES}, frame.anatomy_mask.copy(), T_camera_room
        )


class Finder:
    """Runs on the background thread; the frame path sets `newest` and reads results.

    Parameters
    ----------
    searcher : InitialSearch
    mirror_image : MirrorImage
        Against which every pose that is found is compared once.
    isocentre_ct : array_like, shape (3,)
        Where the patient is expected to lie in the room (LPS mm), so that the C-arm's joints make a prior for any view.
    place : callable
        Places patches for a pose, given the anatomy mask, and how the layers of the patient lie.
    target : TargetBone, optional
        Without it all tissue moves as one.
    """

    def __init__(
        self,
        searcher: InitialSearch,
        mirror_image: MirrorImage,
        isocentre_ct: ArrayLike,
        place: Callable[[Float, NDArray[np.bool_], LayeredPose | None], None],
        target: TargetBone | None = None,
    ) -> None:
        self._searcher, self._mirror_image = searcher, mirror_image
        self._place, self._target = place, target
        self._T_room_ct = np.eye(4)
        self._T_room_ct[:3, 3] = -np.asarray(isocentre_ct)
        self.newest: Snapshot | None = None
        self.found_from: Float | None = None  # T_camera_room of the frame on which the last result was confirmed
        self.doubt = ""  # why what the last search found is not believed, in words
        self._doubt: str | None = None  # of the search under way; None where it has not compared the mirror image
        self._failed_searches = 0
        self._stopping = self._outdated = False
        searcher.prepare()

    def close(self) -> None:
        """Abandons what is under way, for good."""
        self._stopping = True

    def begin_anew(self) -> None:
        """Abandons what is under way: the picture that it looks at is of something else than those that come now."""
        self._outdated, self._failed_searches, self.doubt = True, 0, ""

    @property
    def owes_a_search(self) -> bool:
        """Whether one was abandoned, and none has been begun since."""
        return self._outdated

    def go_on(self) -> None:
        """What is begun from now on is of the pictures that come now."""
        self._outdated = False

    def begin(
        self, background: Executor, snapshot: Snapshot, T_room_ct_before: Float | None, T_before: Float | None = None
    ) -> Future[Hypothesis | None]:
        """Has :meth:`find` done in the background; abandoned by :meth:`begin_anew` even before a thread takes it up."""
        self.newest, self._outdated = snapshot, False
        return background.submit(self.find, snapshot, T_room_ct_before, T_before)

    def find(
        self, snapshot: Snapshot, T_room_ct_before: Float | None, T_before: Float | None = None
    ) -> Hypothesis | None:
        """Searches; None where nothing was found that the newest frame confirms.

        Parameters
        ----------
        snapshot : Snapshot
        T_room_ct_before : ndarray, shape (4, 4), or None
            Where the patient lay when last seen: tried first where the C-arm's joints are known.
        T_before : ndarray, shape (4, 4), or None
            The pose that was lost last: tried next, since the patient and the C-arm may be where they were.
        """
        self._doubt = None
        T_camera_room = snapshot.T_camera_room
        starts = [] if T_before is None else [T_before]
        if T_camera_room is not None and T_room_ct_before is not None:
            starts.insert(0, T_camera_room @ T_room_ct_before)
        for T in starts:
            there = self._searcher.refined(T, snapshot.pyramid, snapshot.anatomy_mask)
            if _believable(self._judged(there, snapshot)):
                caught = self._caught_up(there, snapshot)
                if caught is not None:
                    return self._ended(caught)
        # Around the prior, and when that has failed, every other time around the whole orbit.
        found = self._searcher.search(
            snapshot.pyramid,
            snapshot.anatomy_mask,
            self._go_on,
            orbit=self._failed_searches % 2 == 1,
            T_prior=None if T_camera_room is None else T_camera_room @ self._T_room_ct,
        )
        caught = None if found is None or found.agreement < LOST_AGREEMENT else self._caught_up(found, snapshot)
        every = SETTINGS.mirrored_every
        if caught is None and not self._doubt and self._go_on() and (self._failed_searches + 1) % every == 0:
            self._doubt = reasons.MIRRORED if self._fits_mirrored(snapshot) else ""
        return self._ended(caught)

    def compare(
        self, pose: PoseEstimate, snapshot: Snapshot, layered: LayeredPose | None = None, look: bool = False,
        changed: bool = False,
    ) -> Hypothesis | None:  # fmt: skip
        """Compares a pose with the whole field; where they disagree, neighbouring poses are tried.

        A result without patches is the pose itself.

        Parameters
        ----------
        pose : PoseEstimate
        snapshot : Snapshot
        layered : LayeredPose, optional
            How the layers of the patient lay last: the pose is the target bone's.
        look : bool
            Whether the target bone is looked at where all tissue moves as one.
        changed : bool
            The picture has not gone on from the one before: it may have been mirrored, so its hand is told anew. A pose
            of the other hand, or of one that cannot be told, agrees with nothing.
        """
        pyramid, mask = snapshot.pyramid, snapshot.anatomy_mask
        if layered is not None and self._target is not None:
            here = Hypothesis(pose, self._target.agreement(pose.T_camera_ct, pyramid, mask, layered), layered)
        else:
            here = Hypothesis(pose, self._searcher.agreement(pose.T_camera_ct, pyramid[COARSE_SIDE], mask))
        if self._target is not None and (layered is not None or look):
            found = self._target.of(here, pyramid, mask, layered)
            is_new = found.estimate is not here.estimate
            if found.layered is not None and is_new and found.agreement >= TRACKING_AGREEMENT:
                if changed and self._doubt_of_hand(found, snapshot):
                    return _refuted(here)
                self._place(found.estimate.T_camera_ct, mask, found.layered)
                self.found_from = snapshot.T_camera_room
                return found
            here = found if found.layered is None or not is_new else here
        if here.agreement >= TRACKING_AGREEMENT:
            return _refuted(here) if changed and self._doubt_of_hand(here, snapshot) else here
        better = self._searcher.second_opinion(here, pyramid, mask, self._go_on)
        if better is None or better is here:
            return here
        return self._caught_up(better, snapshot) or here

    def _caught_up(self, found: Hypothesis, on: Snapshot) -> Hypothesis | None:
        """Carries a pose from the frame on which it was found, seconds ago, to the newest; None where that fails.

        The patches for it are placed. It is believed on the newest frame or not at all, and only if the mirror image of
        a frame fits worse.
        """
        of_right_hand = False
        for _ in range(SETTINGS.catch_up_tries):
            snapshot = self.newest
            if snapshot is None or not self._go_on():
                return None
            T = found.estimate.T_camera_ct
            if on.T_camera_room is not None and snapshot.T_camera_room is not None:
                T = snapshot.T_camera_room @ inverse(on.T_camera_room) @ T
            found, on = self._searcher.refined(T, snapshot.pyramid, snapshot.anatomy_mask), snapshot
            judged = self._judged(found, snapshot)
            if _believable(judged) and not of_right_hand:
                self._doubt = self._doubt_of_hand(found, snapshot)
                if self._doubt:
                    return None
                of_right_hand = True
                if self.newest is not snapshot:
                    continue  # the comparison took as long as several frames
            # Where all tissue fits, layers come last, and once: they take longer than all else here.
            if _believable(found):
                judged = self._of_target(found, snapshot)
            if not self._go_on():
                return None
            if _believable(judged):
                self._place(judged.estimate.T_camera_ct, snapshot.anatomy_mask, judged.layered)
                self.found_from = snapshot.T_camera_room
                return judged
            found = judged
            better = self._searcher.second_opinion(found, snapshot.pyramid, snapshot.anatomy_mask, self._go_on)
            if better is None:
                return None
            found, of_right_hand = better, of_right_hand and better is found
        return None

    def _judged(self, found: Hypothesis, snapshot: Snapshot) -> Hypothesis:
        """Where all tissue does not fit, the patient may have moved in parts since the CT: the target bone tells."""
        return found if _believable(found) else self._of_target(found, snapshot)

    def _of_target(self, found: Hypothesis, snapshot: Snapshot) -> Hypothesis:
        return found if self._target is None else self._target.of(found, snapshot.pyramid, snapshot.anatomy_mask)

    def _doubt_of_hand(self, found: Hypothesis, snapshot: Snapshot) -> str:
        mirrored = self._mirror_image.agreement(found.estimate.T_camera_ct, snapshot.pyramid, snapshot.anatomy_mask)
        words = {"right": "", "unclear": reasons.BOTH_HANDS, "mirrored": reasons.MIRRORED}
        return words[told_hand(found.agreement, mirrored)]

    def _fits_mirrored(self, snapshot: Snapshot) -> bool:
        """Whether the mirror image shows the patient: a word for people, never a pose."""
        pyramid = {side: np.ascontiguousarray(image[:, ::-1]) for side, image in snapshot.pyramid.items()}
        anatomy_mask = np.ascontiguousarray(snapshot.anatomy_mask[:, ::-1])
        T_camera_room = snapshot.T_camera_room
        found = self._searcher.search(
            pyramid,
            anatomy_mask,
            self._go_on,
            T_prior=None if T_camera_room is None else T_camera_room @ self._T_room_ct,
        )
        return found is not None and _believable(found)

    def _ended(self, found: Hypothesis | None) -> Hypothesis | None:
        if found is not None:
            self.doubt = ""
        elif self._go_on():
            self.doubt = self.doubt if self._doubt is None else self._doubt
            if not self.doubt and self._searcher.agreement.is_of_little:
                self.doubt = reasons.LITTLE
            # Once both have been searched: around the prior, and around the whole orbit.
            if not self.doubt and self._failed_searches % 2 == 1:
                self.doubt = reasons.NOTHING_FITS
        # One that was given up says nothing of where the patient is.
        self._failed_searches = 0 if found is not None or self._outdated else self._failed_searches + 1
        if self._outdated:
            self.doubt = ""
        return found

    def _go_on(self) -> bool:
        return not self._stopping and not self._outdated


def _refuted(here: Hypothesis) -> Hypothesis:
    """The same pose, which agrees with nothing."""
    return replace(here, agreement=0.0)


def _believable(found: Hypothesis) -> bool:
    e = found.estimate
    return found.agreement >= TRACKING_AGREEMENT and e.score >= TRACKING_SCORE and e.patches >= MIN_PATCHES
