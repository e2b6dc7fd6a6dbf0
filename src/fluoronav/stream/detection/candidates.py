"""Candidates of the first network: lines traced in its maps and measured at full resolution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from fluoronav.imaging.inference import InferenceSettings, Model, engine
from fluoronav.stream.detection.measurement import measure
from fluoronav.stream.detection.network_input import DETAIL_PX, INPUT_PX, MAP_PX, NetworkInput
from fluoronav.stream.detection.profiles import attenuation_in_cells, attenuation_profiles
from fluoronav.stream.detection.strip_image import STRIP_COLS, STRIP_ROWS, sample_strip
from fluoronav.stream.detection.tiles import Tile
from fluoronav.stream.detection.tracing import TIP, Trace, trace_instruments
from fluoronav.stream.frame import Detection, FrameRecord
from fluoronav.stream.stage import blank_counts

Float = NDArray[np.float64]

_WARM_UP_RUNS = 3  # a network's first runs allocate and choose kernels


@dataclass(frozen=True)
class Proposal:
    """A candidate of the first network.

    Attributes
    ----------
    first : Detection
        Without an identity.
    path_px : ndarray, shape (n, 2)
        The traced line in pixels of the frame, (column, row) from the tip.
    """

    first: Detection
    path_px: Float


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
        self.tile_model = Model(engine("instrument-tiles.onnx"), inference)
        longest = max(rows, cols)
        self._to_frame = longest / MAP_PX
        self._input = NetworkInput(np.ones((INPUT_PX, INPUT_PX), bool))
        self._field_mask: np.ndarray | None = None
        self._maps = np.zeros_like(self.model.output[0])
        self._tips = np.zeros((MAP_PX, MAP_PX), np.float32)  # those of the tiles that a frame looks at
        warm_up(self.model)
        warm_up(self.tile_model)
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
        return [p.first for p in self.propose(frame, min_score)]

    def propose(self, frame: FrameRecord, min_score: float, tiles: Sequence[Tile] | None = None) -> list[Proposal]:
        """Candidates in a frame, or in some tiles of it, best first.

        Parameters
        ----------
        frame : FrameRecord
            With its pyramid and its field mask.
        min_score : float
            0 to 1.
        tiles : sequence of Tile, optional
            Only tips in these; shafts go on into what earlier frames showed of the other tiles. By default, a look at
            the whole frame.
        """
        fine = self._taken(frame)
        if tiles is None:
            self._input.write_part(fine, 0, 0, self.model.input[0])
            self.model.run()
            self._maps[...] = self.model.output[0]
            traces = trace_instruments(self._maps, min_score)
        else:
            self._tips[...] = 0
            for tile in tiles:
                self._input.write_part(fine, tile.row, tile.col, self.tile_model.input[0])
                self.tile_model.run()
                self._maps[:, *tile.written] = self.tile_model.output[0][:, *tile.source]
            for tile in tiles:
                self._tips[tile.proposed] = self._maps[TIP][tile.proposed]
            traces = trace_instruments(self._maps, min_score, self._tips)
        proposals = (self._proposal(frame, trace) for trace in traces)
        return [p for p in proposals if p is not None]

    def forget(self, tiles: Sequence[Tile]) -> None:
        """Empties what earlier frames showed of some tiles, such as those that left the field of view."""
        for tile in tiles:
            self._maps[:, *tile.proposed] = 0

    def _taken(self, frame: FrameRecord) -> np.ndarray:
        """Takes a frame as input; returns its finer image, as a square."""
        assert frame.full_field_mask is not None
        image, fine = frame.pyramid[INPUT_PX], frame.pyramid[DETAIL_PX]
        if self._field_mask is not frame.full_field_mask:  # estimated anew twice a second
            self._field_mask = frame.full_field_mask
            self._input.set_field_mask(_padded_to_square(frame.full_field_mask, image.shape, INPUT_PX))
        fine = _padded_to_square(fine, fine.shape, DETAIL_PX)
        image = _padded_to_square(image, image.shape, INPUT_PX)
        self._input.take(image)
        return fine

    def _proposal(self, frame: FrameRecord, trace: Trace) -> Proposal | None:
        path = (trace.path + 0.5) * self._to_frame - 0.5
        first = measured(frame, path, trace.kind, trace.score)
        return None if first is None else Proposal(first, path)


def measured(frame: FrameRecord, path_px: Float, kind: str, score: float) -> Detection | None:
    """An instrument measured along a path (column, row from the tip); None where the path is too short."""
    m = measure(frame.corrected, path_px, frame.dark, frame.inverse, kind)
    if m is None:
        return None
    return Detection(
        "", kind, score, m.tip_px, m.tail_px, m.direction, m.width_px, m.sigma_px, m.sigma_deg, m.sagitta_px, 0
    )


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
