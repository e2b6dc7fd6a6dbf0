"""The displayed image, made on the second core after the overlay was sent."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fluoronav.imaging.inference import InferenceSettings, MissingError
from fluoronav.imaging.xray.contrast import DisplayContrast
from fluoronav.imaging.xray.denoiser import SIDE, LearnedDenoiser
from fluoronav.imaging.xray.spatial_filter import LocalWiener
from fluoronav.imaging.xray.temporal_filter import TemporalFilter
from fluoronav.stream.frame import Budget, FrameRecord
from fluoronav.stream.priority import beside_the_frame_path
from fluoronav.stream.stage import ViewPicture

Float32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ViewTimes:
    """When a picture is made."""

    longest_s: float = 0.15  # between two pictures; chosen: as few as the display shows under load, six a second
    most_ms: float = 8.0  # that it waits for; chosen: a quarter of a period at 30 frames a second
    learned: float = 0.2  # part by which a picture's time changes what is expected of the next; chosen


TIMES = ViewTimes()


class ViewStage:
    """Denoises each frame and enhances its contrast, outside the frame path.

    Left out are a frame that arrives while the last one is in work, and one that leaves less
    time until the next frame than a picture takes (8 ms at most), unless the last picture is 150 ms old.
    """

    name = "view"
    reads = frozenset({"corrected", "dark", "field_mask"})
    writes = frozenset[str]()
    missing = ""  # the local filter needs no network

    def __init__(self, inference: InferenceSettings | None = None) -> None:
        self._inference = inference or InferenceSettings()
        self._learned: LearnedDenoiser | None = None
        self.on_picture: Callable[[ViewPicture], None] = lambda picture: None
        self.worked = self.left_out = 0
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="view", initializer=beside_the_frame_path)
        self._making: Future[None] | None = None
        self.takes_ms = 0.0
        self._begun = float("-inf")  # when the last one was begun; monotonic, s

    def prepare(self, case, camera, progress: Callable[[str], None] = lambda _: None) -> None:
        progress("view: kernels")
        shape = camera.rows, camera.cols
        self._display = DisplayContrast(*shape)
        self._learned = self._network(shape, progress)
        self._spatial: Callable[[Float32, Float32], Float32] = self._learned or LocalWiener(*shape)
        for dtype in (np.uint8, np.uint16):  # compiles for both
            TemporalFilter(*shape)(np.full(shape, 100, dtype), 0.0)
        self._temporal = TemporalFilter(*shape)
        blank = np.zeros(shape, np.float32)
        self._display(self._spatial(blank, blank))

    def _network(self, shape: tuple[int, int], progress: Callable[[str], None]) -> LearnedDenoiser | None:
        """The learned denoiser, where the settings ask for it."""
        wanted, engine = self._inference.denoiser, self._inference.engine
        if wanted == "filter" or (wanted == "auto" and engine in ("cpu", "openvino")):
            return None
        if wanted == "auto" and max(shape) > SIDE:
            return None
        progress("view: denoiser")
        try:
            learned = LearnedDenoiser(*shape, self._inference)
        except MissingError:
            if wanted == "network":
                raise
            return None  # the local filter needs no network
        return learned if wanted == "network" or learned.model.on_gpu else None

    def process(self, frame: FrameRecord, budget: Budget) -> None:
        """Nothing: the overlay does not wait for the picture."""

    @property
    def models(self) -> dict[str, str]:
        return {} if self._learned is None else {"denoiser": self._learned.model.sha256}

    @property
    def fault(self) -> str:
        return "" if self._learned is None else self._learned.model.fault

    @property
    def engine(self) -> str:
        return "cpu" if self._learned is None else self._learned.model.provider

    def idle(self, frame: FrameRecord, budget: Budget) -> None:
        if self._making is not None:
            if not self._making.done():
                self.left_out += 1
                return
            done, self._making = self._making, None
            done.result()  # raises what has failed
        now = time.monotonic()
        if budget.left_ms() < min(self.takes_ms, TIMES.most_ms) and now - self._begun < TIMES.longest_s:
            self.left_out += 1
            return
        self.worked += 1
        self._begun = now
        # A copy, since the frame's memory is the message's.
        counts = np.array(frame.corrected)
        if frame.inverse:
            np.subtract(counts.dtype.type(frame.full_scale), counts, out=counts)
        field_mask = None if frame.field_mask is None else frame.field_mask.copy()
        self._making = self._worker.submit(self._make, frame.seq, frame.t_acq, counts, frame.dark, field_mask)

    def rest(self, frame: FrameRecord) -> None:
        """Nothing: while it rests, no picture is made."""

    def close(self) -> None:
        self._worker.shutdown(wait=True, cancel_futures=True)

    def wait(self) -> None:
        """Returns when the image in work is made; for benches and tests."""
        if self._making is not None:
            self._making.result()

    def _make(self, seq: int, t_acq: int, counts: NDArray, dark: float, field_mask: NDArray[np.bool_] | None) -> None:
        begin = time.perf_counter()
        smooth = self._spatial(self._temporal(counts, dark, field_mask), self._temporal.worth)
        picture = self._display(smooth, field_mask)
        took_ms = (time.perf_counter() - begin) * 1000
        self.takes_ms += TIMES.learned * (took_ms - self.takes_ms)
        self.on_picture(ViewPicture(seq, t_acq, picture))
