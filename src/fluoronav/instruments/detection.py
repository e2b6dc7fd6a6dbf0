"""Instruments in the picture: what the network sees, measured at full resolution, with an identity."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from fluoronav.inference.session import Model, engine
from fluoronav.instruments.edges import measure
from fluoronav.instruments.identity import IdentityTracker
from fluoronav.instruments.network_input import GRID, SIDE, network_input
from fluoronav.instruments.tracing import trace_instruments
from fluoronav.records import Budget, Detection, FrameRecord

# Left for the stages behind this one and for sending, ms.
_RESERVE_MS = 2.0


class DetectionStage:
    """Finds K-wires, drills, screws and needles in each frame.

    Without time for it the instruments of the last frames are carried on with their age.
    """

    name = "detection"

    def __init__(self) -> None:
        self.engine = "none"
        self._needs_ms = 6.0

    def prepare(self, case, camera, progress: Callable[[str], None] = lambda _: None) -> None:
        progress("detection: model")
        self._model = Model(engine("instruments.onnx"))
        self.engine = f"onnxruntime {self._model.provider}"
        self._longest = max(camera.rows, camera.cols)
        self._to_frame = self._longest / GRID
        self._identity = IdentityTracker(self._longest / 1024)
        for _ in range(3):
            self._model.run()
        blank = np.zeros((6, GRID, GRID), np.float32)
        blank[0, 20:100, 64] = blank[4, 20, 64] = 0.9
        for trace in trace_instruments(blank):  # compiles
            measure(np.full((self._longest, self._longest), 9, np.uint16), trace.path * self._to_frame, 0.0)

    def process(self, frame: FrameRecord, budget: Budget) -> None:
        frame.models["instruments"] = self._model.sha256
        left = budget.left_ms()
        if left < self._needs_ms + _RESERVE_MS or frame.seen is None:
            frame.detections = self._identity.update([])
            return
        frame.detections = self._identity.update(self.find(frame))
        self._needs_ms += 0.1 * (left - budget.left_ms() - self._needs_ms)

    def find(self, frame: FrameRecord) -> list[Detection]:
        """What is in one frame, best first, without identities.

        Parameters
        ----------
        frame : FrameRecord
            With its pyramid.
        """
        assert frame.seen is not None
        image = frame.pyramid[SIDE]
        target = self._model.input[0]
        if image.shape == (SIDE, SIDE):
            network_input(image, frame.seen, target)
        else:  # a picture that is not square fills the upper left; the rest is dark
            rows, cols = image.shape
            square = np.zeros((SIDE, SIDE), np.float32)
            square[:rows, :cols] = image
            seen = np.zeros((SIDE, SIDE), bool)
            seen[:rows, :cols] = cv2.resize(frame.seen.astype(np.uint8), (cols, rows), interpolation=cv2.INTER_NEAREST)
            network_input(square, seen, target)
        self._model.run()
        found = []
        for trace in trace_instruments(self._model.output[0]):
            path = (trace.path + 0.5) * self._to_frame - 0.5
            m = measure(frame.counts, path, frame.dark, frame.inverse, trace.kind)
            if m is not None:
                found.append(
                    Detection(
                        "", trace.kind, trace.score, m.tip_px, m.tail_px, m.direction, m.width_px, m.sigma_px,
                        m.sigma_deg, m.bend_px, 0,
                    )
                )  # fmt: skip
        return found

    def idle(self) -> None: ...

    def close(self) -> None: ...
