"""Registration in narrower fields: blades, and smaller round apertures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from fluoronav.imaging.registration.model import RegistrationModel
from fluoronav.lab.bench.poses import PoseStages, kept, searched, tracked
from fluoronav.lab.bench.subjects import Subject
from fluoronav.lab.simulation.flat_panel import FlatPanel, ImageChain
from fluoronav.stream.frame import FrameRecord

Float = NDArray[np.float64]

_PHOTONS = 80.0  # mean detected photons per pixel; chosen: a usual dose
# Chosen: blades from the simulator's own to a fifth of the image's width, round fields of 60 and 50 % of it.
FIELDS = {
    **{
        f"blades at {fraction:g}": FlatPanel(photons=_PHOTONS, collimator_fraction=fraction)
        for fraction in (0.9, 0.6, 0.45, 0.3, 0.2)
    },
    **{
        f"round, {fraction:g}": FlatPanel(photons=_PHOTONS, aperture_fraction=fraction, collimator_fraction=1.1)
        for fraction in (0.6, 0.5)
    },
}


def bench_narrow(
    subject: Subject, stages: PoseStages, model: RegistrationModel, start: Callable[[int], Float]
) -> list[dict[str, Any]]:
    """Search and tracking in each field.

    Parameters
    ----------
    subject : Subject
    stages : PoseStages
        Of this subject; its aperture is changed.
    model : RegistrationModel
    start : callable
        ``T_camera_ct`` at which the search begins, by the exposure's index.

    Returns
    -------
    list of dict
        Per field: its name; ``share``, its fraction of the image; ``lost`` and ``beyond``, what the field mask
        lacks and what it has too much (fractions of the field, means); results of `searched` and `tracked`.
    """
    rows = []
    for name, detector in FIELDS.items():
        truth = ImageChain(detector, subject.camera.rows, subject.camera.cols, 3).field_mask
        frames = [_frame(subject, stages, i, detector) for i in range(len(subject.beams))]
        found = [cv2.resize(_field_mask(f).astype(np.uint8), truth.shape[::-1], interpolation=cv2.INTER_NEAREST) > 0
                 for f in frames]  # fmt: skip
        rows.append(
            {
                "field": name,
                "share": float(truth.mean()),
                "lost": float(np.mean([(truth & ~field_mask).sum() for field_mask in found]) / truth.sum()),
                "beyond": float(np.mean([(field_mask & ~truth).sum() for field_mask in found]) / truth.sum()),
                "search": searched(subject, model, frames, f"search, {name}", start),
                "tracking": tracked(subject, stages, frames, _PHOTONS),
            }
        )
    return rows


def _frame(subject: Subject, stages: PoseStages, index: int, detector: FlatPanel) -> FrameRecord:
    """An exposure as the stage's first frame, in which it finds the aperture."""
    stages.attenuation.prepare(subject.case, subject.camera)
    return kept(stages.frame(subject.counts(index, detector, 2)))


def _field_mask(frame: FrameRecord) -> NDArray[np.bool_]:
    assert frame.field_mask is not None
    return frame.field_mask
