"""The filters that are compared."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from fluoronav.imaging.inference import InferenceSettings
from fluoronav.imaging.xray.denoiser import LearnedDenoiser
from fluoronav.imaging.xray.spatial_filter import LocalWiener
from fluoronav.imaging.xray.temporal_filter import TemporalFilter

Float32 = NDArray[np.float32]
Smoother = Callable[[Float32, Float32], Float32]
Filter = Callable[[NDArray[np.uint16], Float32, float], Float32]


def filters(field_mask: NDArray[np.bool_], dark: float) -> dict[str, Callable[[], Filter]]:
    """Functions that make each filter anew, since some have a memory."""

    def ours(spatial: Smoother) -> Filter:
        temporal = TemporalFilter(*field_mask.shape)

        def run(counts: NDArray[np.uint16], stabilised: Float32, dark: float) -> Float32:
            return spatial(_restabilised(temporal, counts, stabilised, dark, field_mask), temporal.worth)

        return run

    def recursive() -> Filter:
        memory: list[Float32] = []

        def run(counts: NDArray[np.uint16], stabilised: Float32, dark: float) -> Float32:
            if not memory:
                memory.append(stabilised.copy())
            cv2.accumulateWeighted(stabilised, memory[0], 0.3)
            return memory[0]

        return run

    def eight_bits(run: Callable[[NDArray[np.uint8]], NDArray]) -> Filter:
        """For filters that OpenCV has in 8 bits only."""

        def filtered(counts: NDArray[np.uint16], stabilised: Float32, dark: float) -> Float32:
            low = float(stabilised.min())
            step = max(float(stabilised.max() - low) / 255, 1e-6)
            return run(((stabilised - low) / step).astype(np.uint8)).astype(np.float32) * step + low

        return filtered

    def bilateral(sigmas: float, reach_px: float) -> Filter:
        def run(counts: NDArray[np.uint16], stabilised: Float32, dark: float) -> Float32:
            return np.asarray(cv2.bilateralFilter(stabilised, 7, sigmas, reach_px), np.float32)

        return run

    return {
        "none": lambda: lambda counts, stabilised, dark: stabilised,
        "fluoronav": lambda: ours(LocalWiener(*field_mask.shape)),
        "with network": lambda: ours(LearnedDenoiser(field_mask.shape[0], field_mask.shape[1], InferenceSettings())),
        "recursive 0.3": recursive,
        "bilateral": lambda: bilateral(3.0, 2.0),
        # Edges nearly as narrow as with our filter.
        "bilateral, fine": lambda: bilateral(2.0, 1.0),
        "NLM": lambda: eight_bits(lambda image: cv2.fastNlMeansDenoising(image, None, 6, 5, 11)),
        "CLAHE": lambda: eight_bits(lambda image: cv2.createCLAHE(2.0, (8, 8)).apply(image)),
    }


def _restabilised(
    temporal: TemporalFilter,
    counts: NDArray[np.uint16],
    stabilised: Float32,
    dark: float,
    field_mask: NDArray[np.bool_],
) -> Float32:
    """Our temporal filter, which estimates the noise itself; its output on the bench's scale."""
    out = temporal(counts, dark, field_mask)
    model = temporal.model
    if model is None:
        return out
    # Both scales are square roots of the counts; they differ by a straight line.
    a, b = np.polyfit(model.stabilised(counts[::16, ::16]).ravel(), stabilised[::16, ::16].ravel(), 1)
    return (np.float32(a) * out + np.float32(b)).astype(np.float32)
