"""What the first network takes for instruments: its maps traced, and measured at full resolution."""

from __future__ import annotations

import cv2
import numpy as np

from fluoronav.imaging.inference import InferenceSettings, Model, engine
from fluoronav.stream.detection.edges import measure
from fluoronav.stream.detection.network_input import FINE, GRID, SIDE, Field
from fluoronav.stream.detection.profiles import shadow_along, shadow_in_cells
from fluoronav.stream.detection.straightened import COLS, ROWS, strip
from fluoronav.stream.detection.tracing import trace_instruments
from fluoronav.stream.frame import Detection, FrameRecord, blank_counts


class Proposer:
    """Finds candidates in frames of one size.

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
        self._to_frame = longest / GRID
        self._field = Field(np.ones((SIDE, SIDE), bool))
        self._exposed: np.ndarray | None = None
        for _ in range(3):
            self.model.run()
        self._compile(longest)

    def _compile(self, longest: int) -> None:
        """All that a frame with an instrument needs: the first of them must not wait for it."""
        for some in blank_counts(4, 4):
            shadow_along(some, np.zeros((1, 2)), np.ones(2), 2, 0.0, False)
            shadow_in_cells(some, np.zeros(2), np.ones(2), np.ones(2), 0.0, False, np.empty((2, 2), np.float32))
        field_mask = np.ones((SIDE, SIDE), bool)
        self._field.write(np.zeros((SIDE, SIDE), np.float32), np.zeros((FINE, FINE), np.float32), self.model.input[0])
        maps = np.zeros((6, GRID, GRID), np.float32)
        for col in (64, 96):  # two, so that they are compared
            maps[0, 20:100, col] = maps[4, 20, col] = 0.9
        straight, _ = trace_instruments(maps)
        bow = 12.0 * np.linspace(-1, 1, len(straight.path)) ** 2
        for off in (np.zeros_like(bow), bow):
            path = (straight.path + off[:, None] * [1, 0]) * self._to_frame
            counts = np.full((longest, longest), 9000, np.uint16)
            # A wire that can be measured.
            cv2.polylines(counts, [np.rint(path).astype(np.int32)], False, 3000, max(round(7 * longest / 1024), 1))
            found = measure(counts, path, 0.0)
            assert found is not None
            strip(counts, field_mask, found.tip_px, found.direction, 0.0, False, np.empty((2, ROWS, COLS), np.float32))

    def find(self, frame: FrameRecord, least_score: float) -> list[Detection]:
        """Candidates in a frame, best first, without identities.

        Parameters
        ----------
        frame : FrameRecord
            With its pyramid.
        least_score : float
            0 to 1.
        """
        assert frame.full_field_mask is not None
        image, fine = frame.pyramid[SIDE], frame.pyramid[FINE]
        if self._exposed is not frame.full_field_mask:  # a new one is estimated twice a second
            self._exposed = frame.full_field_mask
            self._field.see(_square(frame.full_field_mask, image.shape, SIDE))
        self._field.write(_square(image, image.shape, SIDE), _square(fine, fine.shape, FINE), self.model.input[0])
        self.model.run()
        found = []
        for trace in trace_instruments(self.model.output[0], least_score):
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


def _square(picture: np.ndarray, shape: tuple[int, ...], side: int) -> np.ndarray:
    """As the network's input is; what is not square fills the upper left, and the rest is 0."""
    rows, cols = shape
    if rows == cols:
        return picture
    square = np.zeros((side, side), np.float32)
    square[:rows, :cols] = cv2.resize(picture.astype(np.float32), (cols, rows), interpolation=cv2.INTER_NEAREST)
    return square
