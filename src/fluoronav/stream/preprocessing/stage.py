"""Counts to attenuation, at the resolutions that the registration reads."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from fluoronav.imaging.xray.detector import DetectorCalibration, DetectorCorrection, DetectorError
from fluoronav.imaging.xray.field_edge import find_full_field_mask
from fluoronav.imaging.xray.field_of_view import FieldOfView, dark_level, find_field_of_view
from fluoronav.stream.frame import Budget, FrameRecord, blank_counts

# The finest is for the detector of instruments, the others for the registration.
SIDES = (512, 256, 128, 64)
_MASK_SIDE, _RIM_SIDE = 128, 512
# The dark level and the aperture change when somebody moves a blade or a setting, not from frame to frame.
_MASK_EVERY_FRAMES = 15
# While a pose is searched for, which takes both cores, looking takes several times as long and makes a frame late.
_RARER_IN_A_SEARCH = 4
# It waits for a frame that leaves time for it, but no longer than this.
_MOST_LATER_FRAMES = 15


class Binning:
    """Averages the counts of frames of one size, more for more X-rays.

    Parameters
    ----------
    rows, cols : int
        Of the frames.
    shape : tuple of int
        Of what comes out.
    """

    def __init__(self, rows: int, cols: int, shape: tuple[int, int]) -> None:
        self._shape = shape[::-1]
        self._full, self._binned = np.zeros((rows, cols), np.float32), np.zeros(shape, np.uint16)

    def __call__(self, frame: FrameRecord, out: NDArray[np.float32]) -> None:
        """Writes the binned counts of a frame."""
        if frame.counts.dtype == np.uint8:
            # Averages of 8 bit counts have fractions that matter.
            np.copyto(self._full, frame.counts)
            cv2.resize(self._full, self._shape, dst=out, interpolation=cv2.INTER_AREA)
        else:
            cv2.resize(frame.counts, self._shape, dst=self._binned, interpolation=cv2.INTER_AREA)
            np.copyto(out, self._binned)
        if frame.inverse:
            np.subtract(np.float32(frame.full_scale), out, out=out)


def write_attenuation(counts: NDArray[np.float32], frame: FrameRecord, out: NDArray[np.float32]) -> None:
    """Minus the logarithm of the share of the open beam that is left.

    Parameters
    ----------
    counts : ndarray of float32
        Of `frame`, binned to any size, more for more X-rays.
    frame : FrameRecord
        With its dark level.
    out : ndarray of float32, of the same shape
    """
    full = float(frame.full_scale)
    open_beam = max((frame.open_beam or full) - frame.dark, 1.0)
    np.subtract(counts, np.float32(frame.dark), out=out)
    # Half a count at the least: the logarithm of nothing is not an attenuation.
    np.maximum(out, np.float32(0.5 * full / 65535), out=out)
    cv2.log(out, out)
    np.subtract(np.float32(np.log(open_beam)), out, out=out)


class AttenuationStage:
    """Corrects the detector, bins the counts, subtracts the dark level and takes the logarithm.

    Where the camera file names a calibration of the detector, `frame.counts` is the corrected frame from here on. The
    image is not undistorted: rays are cast through the distorted pixels instead, which loses nothing.

    Counts are binned before the logarithm: at 20 photons a pixel the logarithm of a mean is right and the mean of
    logarithms is not. The dark level is what the detector reads outside the aperture, where there is one.
    """

    name = "attenuation"
    engine = "cpu"

    def __init__(self) -> None:
        self._detector: DetectorCorrection | None = None
        self._dark = 0.0
        self._field: FieldOfView | None = None
        self._exposed: NDArray[np.bool_] | None = None
        self._last: FrameRecord | None = None
        self._since_looked = 0
        self._rim_is_due = False
        self._look_took_ms = self._rim_took_ms = 0.0

    def prepare(self, case, camera, progress: Callable[[str], None] = lambda _: None) -> None:
        longest = max(camera.rows, camera.cols)
        self._shapes = {
            side: (max(round(camera.rows * side / longest), 1), max(round(camera.cols * side / longest), 1))
            for side in SIDES
        }
        self._counts = {side: np.zeros(shape, np.float32) for side, shape in self._shapes.items()}
        self._attenuation = {side: np.zeros(shape, np.float32) for side, shape in self._shapes.items()}
        # Each level is made of the next larger one, but not of one that is larger than the frame.
        of_frame = [SIDES[0], *(smaller for larger, smaller in pairwise(SIDES) if larger > longest)]
        self._bin_frame = {side: Binning(camera.rows, camera.cols, self._shapes[side]) for side in of_frame}
        self._detector = None
        if camera.detector is not None:
            progress("attenuation: detector calibration")
            calibration = DetectorCalibration.load(camera.detector)
            if calibration.offset.shape != (camera.rows, camera.cols):
                raise DetectorError(
                    f"{camera.detector}: is for {calibration.offset.shape[1]} x {calibration.offset.shape[0]} pixels, "
                    f"the camera has {camera.cols} x {camera.rows}"
                )
            self._detector = DetectorCorrection(calibration)
            for counts in blank_counts(camera.rows, camera.cols):
                self._detector(counts, 8)  # compiles
        if self._field is None:
            # The first frame looks for its field, which took four times as long while all that needs was being loaded.
            y, x = np.mgrid[:_RIM_SIDE, :_RIM_SIDE] / _RIM_SIDE - 0.5
            fine = np.where(np.hypot(x, y) < 0.45, 1000, 0).astype(np.float32)
            small = cv2.resize(fine, (_MASK_SIDE, _MASK_SIDE), interpolation=cv2.INTER_AREA)
            self._look_around({_MASK_SIDE: np.asarray(small, np.float32)})
            self._follow_rim({_RIM_SIDE: fine})
        self._last, self._since_looked, self._rim_is_due = None, 0, False

    def process(self, frame: FrameRecord, budget: Budget) -> None:
        if self._detector is not None:
            frame.counts = self._detector(frame.counts, frame.bits)
        counts = self._bin(frame)
        if self._last is None:
            self._look_around(counts)
            self._follow_rim(counts)
        frame.dark = self._dark
        for side in SIDES:
            write_attenuation(counts[side], frame, self._attenuation[side])
        frame.pyramid = self._attenuation
        assert self._field is not None
        frame.field_mask, frame.full_field_mask = self._field.field_mask, self._exposed
        self._last = frame

    @property
    def _searching(self) -> bool:
        return self._last is not None and self._last.status == "searching"

    def idle(self, budget: Budget) -> None:
        # Several milliseconds each, which no frame has to wait for: an aperture that changes is noticed a frame later,
        # and its rim after the next.
        self._since_looked += 1
        if self._rim_is_due:
            if self._may(budget, self._rim_took_ms, 1):
                self._rim_took_ms = _timed(self._follow_rim, self._counts)
                self._rim_is_due = False
            return
        every = _MASK_EVERY_FRAMES * (_RARER_IN_A_SEARCH if self._searching else 1)
        if self._since_looked >= every and self._may(budget, self._look_took_ms, every):
            self._look_took_ms = _timed(self._look_around, self._counts)
            self._since_looked, self._rim_is_due = 0, True

    def _may(self, budget: Budget, takes_ms: float, due_after: int) -> bool:
        """Whether there is time for what was due so many frames after the last look, or it has waited long enough."""
        return budget.left_ms() > takes_ms or self._since_looked >= due_after + _MOST_LATER_FRAMES

    def close(self) -> None: ...

    def _bin(self, frame: FrameRecord) -> dict[int, NDArray[np.float32]]:
        for side, bin_frame in self._bin_frame.items():
            bin_frame(frame, self._counts[side])
        for larger, smaller in pairwise(SIDES):
            if smaller not in self._bin_frame:
                cv2.resize(
                    self._counts[larger],
                    self._shapes[smaller][::-1],
                    dst=self._counts[smaller],
                    interpolation=cv2.INTER_AREA,
                )
        return self._counts

    def _look_around(self, counts: dict[int, NDArray[np.float32]]) -> None:
        small = counts[_MASK_SIDE]
        self._field = find_field_of_view(small)
        self._dark = dark_level(small, self._field.field_mask)

    def _follow_rim(self, counts: dict[int, NDArray[np.float32]]) -> None:
        assert self._field is not None
        self._exposed = find_full_field_mask(self._field, counts[_RIM_SIDE])


def _timed(work: Callable[[dict[int, NDArray[np.float32]]], None], counts: dict[int, NDArray[np.float32]]) -> float:
    """Does it, and says how many milliseconds it took."""
    begin = time.perf_counter()
    work(counts)
    return (time.perf_counter() - begin) * 1000
