"""How far the field may be narrowed until poses are no longer found: blades and a smaller round aperture."""

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

_PHOTONS = 80.0
# Blades from as wide as the simulator's own to a fifth of the image's width, and round fields of 60 and 50 % of it.
FIELDS = {
    **{
        f"blades at {share:g}": FlatPanel(photons=_PHOTONS, collimator_fraction=share)
        for share in (0.9, 0.6, 0.45, 0.3, 0.2)
    },
    **{
        f"round, {share:g}": FlatPanel(photons=_PHOTONS, aperture_fraction=share, collimator_fraction=1.1)
        for share in (0.6, 0.5)
    },
}


def bench_narrow(
    subject: Subject, stages: PoseStages, model: RegistrationModel, start: Callable[[int], Float]
) -> list[dict[str, Any]]:
    """Searches and tracking in each field.

    Parameters
    ----------
    subject : Subject
    stages : PoseStages
        Of this subject; its aperture is another afterwards.
    model : RegistrationModel
    start : callable
        From which ``T_camera_ct`` the search begins, by the exposure's index.

    Returns
    -------
    list of dict
        Per field: its name, its share of the image, how much of it is not taken for seen and how much
        beyond it is (shares of it, means), and what `searched` and `tracked` return.
    """
    rows = []
    for name, detector in FIELDS.items():
        truth = ImageChain(detector, subject.camera.rows, subject.camera.cols, 3).field_mask
        frames = [_frame(subject, stages, i, detector) for i in range(len(subject.beams))]
        found = [cv2.resize(_seen(f).astype(np.uint8), truth.shape[::-1], interpolation=cv2.INTER_NEAREST) > 0
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
    """An exposure whose aperture is found in itself: the stage's first frame."""
    stages.attenuation.prepare(subject.case, subject.camera)
    return kept(stages.frame(subject.counts(index, detector, 2)))


def _seen(frame: FrameRecord) -> NDArray[np.bool_]:
    assert frame.field_mask is not None
    return frame.field_mask
