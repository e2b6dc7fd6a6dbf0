"""Segmentation by a network that a hospital brings: nnU-Net's preprocessing, and an ONNX file with a model card."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from fluoronav.case.volume import Volume
from fluoronav.planning.anatomy import OWN_LABELS, by_name, mirrored
from fluoronav.planning.segmentation.engine import Progress, SegmentationError, SegmentedStructure
from fluoronav.planning.segmentation.engine import Segmentation as Found
from fluoronav.planning.segmentation.model_card import Card, Intensity, read_card, read_model
from fluoronav.planning.segmentation.resampling import resampled
from fluoronav.planning.segmentation.sliding_window import Float32, probabilities


@dataclass(frozen=True, slots=True)
class NetworkLimits:
    """Limits; all are chosen.

    Attributes
    ----------
    most_bytes : int
        Memory for the resampled CT and the sums of one row of windows.
    least_voxels : int
        Of a structure; fewer are noise.
    """

    most_bytes: int = 4 << 30
    least_voxels: int = 20


LIMITS = NetworkLimits()


class NetworkEngine:
    """Runs one model.

    Parameters
    ----------
    folder : Path
        Holds ``card.yaml`` and the ONNX file.
    mirror : bool
        Averages over mirrored inputs along the card's `mirror_axes`: slower; off by default, since a network that
        tells left from right by their places is harmed by it.

    Raises
    ------
    SegmentationError
        The card or the model cannot be used.
    """

    name = "network"

    def __init__(self, folder: Path, mirror: bool = False) -> None:
        self.card = read_card(folder)
        self._axes = self.card.mirror_axes if mirror else ()
        self._session = _session(read_model(folder, self.card), folder / self.card.file, self.card)

    def segment(self, ct: Volume, progress: Progress) -> Found:
        """Segments a CT; see :class:`fluoronav.planning.segmentation.engine.Engine`."""
        begun = time.perf_counter()
        card = self.card
        progress("resampling", 0.0)
        turned = ct.image if card.orientation == "file" else sitk.DICOMOrient(ct.image, card.orientation)
        _check_memory(turned, card)
        volume = prepared(turned, card)
        padded, inside = _padded(volume, card.patch)
        planes = probabilities(padded, self._logits, card.patch, lambda share: progress("network", 0.9 * share))
        planes = (p[:, inside[1], inside[2]] for k, p in enumerate(planes) if inside[0].start <= k < inside[0].stop)
        channels, sums = _on_grid(planes, volume.shape, turned.GetSize()[::-1], len(card.labels) + 1)
        progress("labels", 0.95)
        found = self._found(channels, sums, turned, ct.image, begun)
        progress("done", 1.0)
        return found

    def _logits(self, window: Float32) -> Float32:
        total = self._run(window)
        if not self._axes:
            return total
        subsets = range(1, 2 ** len(self._axes))
        for chosen in subsets:
            axes = tuple(a + 2 for k, a in enumerate(self._axes) if chosen >> k & 1)
            total = total + np.flip(self._run(np.ascontiguousarray(np.flip(window, axes))), axes)
        return np.asarray(total / (len(subsets) + 1), np.float32)

    def _run(self, window: Float32) -> Float32:
        name = self._session.get_inputs()[0].name
        return self._session.run(None, {name: np.ascontiguousarray(window)})[0]

    def _found(
        self, channels: NDArray[np.uint8], sums: NDArray, turned: sitk.Image, like: sitk.Image, begun: float
    ) -> Found:
        labels_of = own_labels(list(self.card.labels))
        table = np.zeros(len(self.card.labels) + 1, np.uint8)
        structures, spacing = [], turned.GetSpacing()
        voxel_cm3 = float(np.prod(spacing)) / 1000
        engine = f"{self.card.name} {self.card.version}"
        counts = np.bincount(channels.reshape(-1), minlength=len(table))
        for name, channel in self.card.labels.items():
            n = int(counts[channel])
            if n < LIMITS.least_voxels:
                continue
            label = labels_of[name]
            table[channel] = label
            structures.append(
                SegmentedStructure(name, label, self.name, round(float(sums[channel] / n), 3), n, n * voxel_cm3)
            )
        image = sitk.GetImageFromArray(table[channels])
        image.CopyInformation(turned)
        if self.card.orientation != "file":
            stored = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(like.GetDirection())
            image = sitk.DICOMOrient(image, stored)
        image.CopyInformation(like)
        check_sides(image, structures)
        return Found(image, tuple(structures), engine, time.perf_counter() - begun)


def prepared(image: sitk.Image, card: Card) -> Float32:
    """The CT on the network's grid, normalised, shape (z, y, x)."""
    values = resampled(np.asarray(sitk.GetArrayViewFromImage(image)), image.GetSpacing()[::-1], card.spacing_mm)
    return normalised(values, card.intensity)


def normalised(values: Float32, intensity: Intensity) -> Float32:
    """HU clipped to the range of the training data, then standardised; in place."""
    np.clip(values, intensity.low, intensity.high, out=values)
    values -= intensity.mean
    values /= intensity.deviation
    return values


def _padded(volume: Float32, window: tuple[int, int, int]) -> tuple[Float32, tuple[slice, slice, slice]]:
    """At least as long as a window along each axis, with zeros around, and where the volume lies in it."""
    before = [max(w - n, 0) // 2 for n, w in zip(volume.shape, window, strict=True)]
    after = [max(w - n, 0) - b for n, w, b in zip(volume.shape, window, before, strict=True)]
    inside = tuple(slice(b, b + n) for b, n in zip(before, volume.shape, strict=True))
    if not any(before) and not any(after):
        return volume, inside  # type: ignore[return-value]
    return np.pad(volume, list(zip(before, after, strict=True))), inside  # type: ignore[return-value]


def _on_grid(
    planes: Iterator[Float32], shape: tuple[int, ...], wanted: tuple[int, int, int], number: int
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """The likeliest channel of each voxel of a grid (z, y, x), and each channel's sum of probabilities there."""
    channels, sums = np.empty(wanted, np.uint8), np.zeros(number)
    at = np.clip((np.arange(wanted[0]) + 0.5) * shape[0] / wanted[0] - 0.5, 0, shape[0] - 1)
    below = above = next(planes)
    k = 0  # of the plane above
    for z, wish in enumerate(at):
        while wish > k:
            below, above, k = above, next(planes), k + 1
        t = float(wish - (k - 1)) if k else 1.0
        channels[z], sure = _likeliest(np.asarray((1 - t) * below + t * above, np.float32), (wanted[2], wanted[1]))
        sums += np.bincount(channels[z].reshape(-1), sure.reshape(-1), minlength=number)
    return channels, sums


def _likeliest(plane: Float32, size_xy: tuple[int, int]) -> tuple[NDArray[np.uint8], Float32]:
    best = np.zeros(size_xy[::-1], np.uint8)
    most = _resized(plane[0], size_xy)
    for channel in range(1, len(plane)):
        if plane[channel].max() < 1e-3:
            continue
        value = _resized(plane[channel], size_xy)
        better = value > most
        best[better], most[better] = channel, value[better]
    return best, most


def _resized(plane: Float32, size_xy: tuple[int, int]) -> Float32:
    if plane.shape == size_xy[::-1]:
        return plane.copy()
    return np.asarray(cv2.resize(plane, size_xy, interpolation=cv2.INTER_LINEAR), np.float32)


def own_labels(names: list[str]) -> dict[str, int]:
    """Label values of structures: those of the vocabulary, and free ones for names that it does not have."""
    free = iter(OWN_LABELS)
    known = by_name()
    try:
        return {name: known[name].label if name in known else next(free) for name in names}
    except StopIteration as error:
        raise SegmentationError("the model has more than 53 structures that the vocabulary does not know") from error


def check_sides(labels: sitk.Image, structures: list[SegmentedStructure]) -> None:
    """Refuses labels whose left structures lie to the right of their right ones.

    Raises
    ------
    SegmentationError
        More pairs are exchanged than right: the orientation in the card is not that of the training.
    """
    places = sitk.LabelShapeStatisticsImageFilter()
    places.ComputeOrientedBoundingBoxOff()
    places.Execute(labels)
    by = {s.name: s.label for s in structures}
    pairs = [(by[n], by[mirrored(n)]) for n in by if "left" in n and mirrored(n) in by]
    # LPS: x grows to the patient's left.
    wrong = [places.GetCentroid(left)[0] < places.GetCentroid(right)[0] for left, right in pairs]
    if pairs and 2 * sum(wrong) > len(pairs):
        raise SegmentationError(
            f"left and right are exchanged in {sum(wrong)} of {len(pairs)} pairs of structures: the model was trained "
            "on another orientation of images than its card says (`orientation`)"
        )


def _check_memory(image: sitk.Image, card: Card) -> None:
    spacing, size = image.GetSpacing()[::-1], image.GetSize()[::-1]
    shape = [max(n * a / b, w) for n, a, b, w in zip(size, spacing, card.spacing_mm, card.patch, strict=True)]
    # Sums of one row of windows in every channel, and the volume with its resampled planes.
    needed = 4 * ((len(card.labels) + 1) * card.patch[0] * shape[1] * shape[2] + 2 * float(np.prod(shape)))
    if needed > LIMITS.most_bytes:
        raise SegmentationError(
            f"{card.name}: needs {needed / 2**30:.1f} GiB for this CT, and at most {LIMITS.most_bytes / 2**30:.0f} may "
            "be used: crop the CT, or take a model with a larger spacing"
        )


def _session(content: bytes, path: Path, card: Card) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    wanted = [
        p for p in ("CUDAExecutionProvider", "CPUExecutionProvider") if p in onnxruntime.get_available_providers()
    ]
    try:
        session = onnxruntime.InferenceSession(content, options, providers=wanted)
        window = np.zeros((1, 1, *card.patch), np.float32)
        inputs, outputs = session.get_inputs(), session.get_outputs()
        if len(inputs) != 1 or len(outputs) != 1:
            raise SegmentationError(
                f"{path}: has {len(inputs)} inputs and {len(outputs)} outputs; it must have one each"
            )
        logits = np.asarray(session.run(None, {inputs[0].name: window})[0])
    except SegmentationError:
        raise
    except Exception as error:  # ONNX Runtime's errors share no class
        text = str(error).strip().splitlines()
        raise SegmentationError(f"{path}: cannot be run by ONNX Runtime: {text[0] if text else error!r}") from error
    shape = (1, len(card.labels) + 1, *card.patch)
    if logits.shape != shape:
        raise SegmentationError(f"{path}: returns {logits.shape} for a window; by its card it should be {shape}")
    return session
