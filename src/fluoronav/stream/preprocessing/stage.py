"""Counts to attenuation, at the resolutions that the registration reads."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from fluoronav.imaging.xray.anatomy_mask import find_anatomy
from fluoronav.imaging.xray.detector import DetectorCalibration, DetectorCorrection, DetectorError
from fluoronav.imaging.xray.field_edge import find_full_field_mask
from fluoronav.imaging.xray.field_of_view import FieldOfView, dark_level, find_field_of_view
from fluoronav.imaging.xray.field_shapes import EDGE_SIDE, FIELD_SIDE
from fluoronav.stream.frame import Budget, FrameRecord
from fluoronav.stream.stage import blank_counts

# Pixels of the longer side: the finest level is for the detection of instruments, the others for the registration.
SIDES = (512, 256, 128, 64)


@dataclass(frozen=True, slots=True)
class FieldUpdates:
    """When the field of view, its metal and the dark level are updated, in frames; all are chosen."""

    every: int = 15  # they change when blades or settings do, not from frame to frame
    in_a_search: int = 4  # factor on `every`: the pose search uses both cores, and an update would delay a frame
    most_delay: int = 15  # an update waits this long for a frame that leaves time for it


UPDATES = FieldUpdates()


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
        if frame.corrected.dtype == np.uint8:
            # Means of 8 bit counts must keep their fractions.
            np.copyto(self._full, frame.corrected)
            cv2.resize(self._full, self._shape, dst=out, interpolation=cv2.INTER_AREA)
        else:
            cv2.resize(frame.corrected, self._shape, dst=self._binned, interpolation=cv2.INTER_AREA)
            np.copyto(out, self._binned)
        if frame.inverse:
            np.subtract(np.float32(frame.full_scale), out, out=out)


def write_attenuation(counts: NDArray[np.float32], frame: FrameRecord, out: NDArray[np.float32]) -> None:
    """Minus the logarithm of the transmitted fraction of the open beam.

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
    # At least half a count, since the logarithm of 0 is infinite.
    np.maximum(out, np.float32(0.5 * full / 65535), out=out)
    cv2.log(out, out)
    np.subtract(np.float32(np.log(open_beam)), out, out=out)


class AttenuationStage:
    """Corrects the detector, bins the counts, subtracts the dark level and takes the logarithm.

    Where the camera file names a calibration of the detector, `frame.corrected` is the corrected frame. The
    image is not undistorted: rays are cast through the distorted pixels instead, which loses nothing.

    Counts are binned before the logarithm: at 20 photons a pixel the mean of logarithms is biased. The dark level is
    the detector's reading outside the field of view, where it has an edge.
    """

    name = "attenuation"
    engine = "cpu"
    reads = frozenset[str]()
    writes = frozenset({"corrected", "dark", "pyramid", "field_mask", "anatomy_mask", "full_field_mask"})

    def __init__(self) -> None:
        self._detector: DetectorCorrection | None = None
        self._dark = 0.0
        self._field: FieldOfView | None = None
        self._anatomy_mask: NDArray[np.bool_] | None = None
        self._full_field_mask: NDArray[np.bool_] | None = None
        self._begun = False
        self._since_update = 0
        self._edges_are_due = False
        self._field_took_ms = self._edges_took_ms = 0.0

    def prepare(self, case, camera, progress: Callable[[str], None] = lambda _: None) -> None:
        longest = max(camera.rows, camera.cols)
        self._shapes = {
            side: (max(round(camera.rows * side / longest), 1), max(round(camera.cols * side / longest), 1))
            for side in SIDES
        }
        self._counts = {side: np.zeros(shape, np.float32) for side, shape in self._shapes.items()}
        self._attenuation = {side: np.zeros(shape, np.float32) for side, shape in self._shapes.items()}
        # Each level is binned from the next larger one, unless that is larger than the frame.
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
            # A search now loads all that it needs: otherwise it would take four times as long in the first frame.
            y, x = np.mgrid[:EDGE_SIDE, :EDGE_SIDE] / EDGE_SIDE - 0.5
            fine = np.where(np.hypot(x, y) < 0.45, 1000, 0).astype(np.float32)
            small = cv2.resize(fine, (FIELD_SIDE, FIELD_SIDE), interpolation=cv2.INTER_AREA)
            self._find_field({FIELD_SIDE: np.asarray(small, np.float32)})
            self._refine_edges({EDGE_SIDE: fine})
        self._begun, self._since_update, self._edges_are_due = False, 0, False

    def process(self, frame: FrameRecord, budget: Budget) -> None:
        if self._detector is not None:
            frame.corrected = self._detector(frame.counts, frame.bits)
        counts = self._bin(frame)
        if not self._begun:
            self._find_field(counts)
            self._refine_edges(counts)
            self._begun = True
        frame.dark = self._dark
        for side in SIDES:
            write_attenuation(counts[side], frame, self._attenuation[side])
        frame.pyramid = self._attenuation
        assert self._field is not None
        frame.field_mask, frame.anatomy_mask = self._field.field_mask, self._anatomy_mask
        frame.full_field_mask = self._full_field_mask

    def idle(self, frame: FrameRecord, budget: Budget) -> None:
        # Each takes several milliseconds, for which no frame waits: a change of the field of view is seen one frame
        # later, and its refined edges after the next.
        self._since_update += 1
        if self._edges_are_due:
            if self._may(budget, self._edges_took_ms, 1):
                self._edges_took_ms = _timed(self._refine_edges, self._counts)
                self._edges_are_due = False
            return
        every = UPDATES.every * (UPDATES.in_a_search if frame.status == "searching" else 1)
        if self._since_update >= every and self._may(budget, self._field_took_ms, every):
            self._field_took_ms = _timed(self._find_field, self._counts)
            self._since_update, self._edges_are_due = 0, True

    def _may(self, budget: Budget, takes_ms: float, due_after: int) -> bool:
        """Whether an update that is due has time in this frame, or has waited long enough."""
        return budget.left_ms() > takes_ms or self._since_update >= due_after + UPDATES.most_delay

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

    def _find_field(self, counts: dict[int, NDArray[np.float32]]) -> None:
        small = counts[FIELD_SIDE]
        self._field = find_field_of_view(small)
        self._dark = dark_level(small, self._field.field_mask)
        self._anatomy_mask = find_anatomy(small, self._dark, self._field.field_mask, self._field.median_signal)

    def _refine_edges(self, counts: dict[int, NDArray[np.float32]]) -> None:
        assert self._field is not None
        self._full_field_mask = find_full_field_mask(self._field, counts[EDGE_SIDE])


def _timed(work: Callable[[dict[int, NDArray[np.float32]]], None], counts: dict[int, NDArray[np.float32]]) -> float:
    """Runs it; returns the milliseconds that it took."""
    begin = time.perf_counter()
    work(counts)
    return (time.perf_counter() - begin) * 1000
