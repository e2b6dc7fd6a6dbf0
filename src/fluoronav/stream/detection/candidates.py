"""Candidates of the first network: lines traced in its maps and measured at full resolution."""

from __future__ import annotations

import cv2
import numpy as np

from fluoronav.imaging.inference import InferenceSettings, Model, engine
from fluoronav.stream.detection.measurement import measure
from fluoronav.stream.detection.network_input import DETAIL_PX, INPUT_PX, MAP_PX, NetworkInput
from fluoronav.stream.detection.profiles import attenuation_in_cells, attenuation_profiles
from fluoronav.stream.detection.strip_image import STRIP_COLS, STRIP_ROWS, sample_strip
from fluoronav.stream.detection.tracing import trace_instruments
from fluoronav.stream.frame import Detection, FrameRecord, blank_counts

_WARM_UP_RUNS = 3  # a network's first runs allocate and choose kernels


class CandidateDetector:
    """The first network, for frames of one size.

    Parameters
    ----------
    rows, cols : int
        Of the frames.
    inference : InferenceSettings, optional
        The CPU by default.
    """

    def __init__(self, rows: int, cols: int, inference: InferenceSettings | None = None) -> None:
        self.model = Model(engine("instruments.onnx"), inference)
        longest = max(rows, cols)
        self._to_frame = longest / MAP_PX
        self._input = NetworkInput(np.ones((INPUT_PX, INPUT_PX), bool))
        self._field_mask: np.ndarray | None = None
        warm_up(self.model)
        self._compile(longest)

    def _compile(self, longest: int) -> None:
        """Compiles all kernels that a frame with an instrument needs, before the first such frame."""
        for counts in blank_counts(4, 4):
            attenuation_profiles(counts, np.zeros((1, 2)), np.ones(2), 2, 0.0, False)
            attenuation_in_cells(counts, np.zeros(2), np.ones(2), np.ones(2), 0.0, False, np.empty((2, 2), np.float32))
        field_mask = np.ones((INPUT_PX, INPUT_PX), bool)
        blank, blank_detail = (np.zeros((side, side), np.float32) for side in (INPUT_PX, DETAIL_PX))
        self._input.write(blank, blank_detail, self.model.input[0])
        maps = np.zeros((6, MAP_PX, MAP_PX), np.float32)
        for col in (64, 96):  # two, so that they are compared
            maps[0, 20:100, col] = maps[4, 20, col] = 0.9
        straight, _ = trace_instruments(maps)
        curve = 12.0 * np.linspace(-1, 1, len(straight.path)) ** 2
        for offset in (np.zeros_like(curve), curve):
            path = (straight.path + offset[:, None] * [1, 0]) * self._to_frame
            counts = np.full((longest, longest), 9000, np.uint16)
            # A wire that can be measured.
            cv2.polylines(counts, [np.rint(path).astype(np.int32)], False, 3000, max(round(7 * longest / 1024), 1))
            found = measure(counts, path, 0.0)
            assert found is not None
            strip = np.empty((2, STRIP_ROWS, STRIP_COLS), np.float32)
            sample_strip(counts, field_mask, found.tip_px, found.direction, 0.0, False, strip)

    def detect(self, frame: FrameRecord, min_score: float) -> list[Detection]:
        """Candidates in a frame, best first, without identities.

        Parameters
        ----------
        frame : FrameRecord
            With its pyramid and its field mask.
        min_score : float
            0 to 1.
        """
        assert frame.full_field_mask is not None
        image, fine = frame.pyramid[INPUT_PX], frame.pyramid[DETAIL_PX]
        if self._field_mask is not frame.full_field_mask:  # estimated anew twice a second
            self._field_mask = frame.full_field_mask
            self._input.set_field_mask(_padded_to_square(frame.full_field_mask, image.shape, INPUT_PX))
        self._input.write(
            _padded_to_square(image, image.shape, INPUT_PX),
            _padded_to_square(fine, fine.shape, DETAIL_PX),
            self.model.input[0],
        )
        self.model.run()
        found = []
        for trace in trace_instruments(self.model.output[0], min_score):
            path = (trace.path + 0.5) * self._to_frame - 0.5
            m = measure(frame.corrected, path, frame.dark, frame.inverse, trace.kind)
            if m is not None:
                found.append(
                    Detection(
                        "", trace.kind, trace.score, m.tip_px, m.tail_px, m.direction, m.width_px, m.sigma_px,
                        m.sigma_deg, m.sagitta_px, 0,
                    )
                )  # fmt: skip
        return found


def warm_up(model: Model) -> None:
    """Runs a network on what its input holds."""
    for _ in range(_WARM_UP_RUNS):
        model.run()


def _padded_to_square(image: np.ndarray, shape: tuple[int, ...], side: int) -> np.ndarray:
    """An image resized to `shape` in the upper left of a square, 0 elsewhere; a square image as it is."""
    rows, cols = shape
    if rows == cols:
        return image
    square = np.zeros((side, side), np.float32)
    square[:rows, :cols] = cv2.resize(image.astype(np.float32), (cols, rows), interpolation=cv2.INTER_NEAREST)
    return square
