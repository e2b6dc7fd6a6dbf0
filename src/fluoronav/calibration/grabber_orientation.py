"""Whether a grabber's pictures are mirrored or turned: by a search of the case's pose in each of the eight ways."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fluoronav.calibration.grabber_check import Finding
from fluoronav.case import Case
from fluoronav.geometry import Camera
from fluoronav.imaging.registration.confidence import MIN_PATCHES, TRACKING_AGREEMENT, TRACKING_SCORE
from fluoronav.imaging.registration.model import RegistrationModel
from fluoronav.imaging.registration.search import Hypothesis, InitialSearch
from fluoronav.stream.frame import Budget, FrameRecord
from fluoronav.stream.preprocessing.stage import AttenuationStage
from fluoronav.wire import FrameHeader

# What was done to the picture, and how it is undone. Those that exchange rows and columns need a square picture.
_UNDONE: tuple[tuple[str, bool, Callable[[NDArray[Any]], NDArray[Any]]], ...] = (
    ("", False, lambda p: p),
    ("mirrored left to right", False, lambda p: p[:, ::-1]),
    ("mirrored top to bottom", False, lambda p: p[::-1]),
    ("turned by 180 degrees", False, lambda p: p[::-1, ::-1]),
    ("turned by 90 degrees clockwise", True, lambda p: np.rot90(p, 1)),
    ("turned by 90 degrees anticlockwise", True, lambda p: np.rot90(p, -1)),
    ("mirrored at its falling diagonal", True, lambda p: p.T),
    ("mirrored at its rising diagonal", True, lambda p: p[::-1, ::-1].T),
)


def check_orientation(
    pictures: Sequence[NDArray[Any]], header: FrameHeader, case: Case, camera: Camera, progress: Callable[[str], None]
) -> Finding:
    """Searches the case's pose in the last picture as it is, and in each way that it may have been turned.

    Parameters
    ----------
    pictures : sequence of ndarray of uint8 or uint16
        Of the camera's size.
    header : FrameHeader
        Of the last one.
    case : Case
    camera : Camera
    progress : callable
        Told what is being done.
    """
    progress("loading what the pose is searched with")
    search = InitialSearch(
        RegistrationModel.of_case(case), camera, case.prior.T_camera_ct(), case.prior.spread, case.target_ct
    )
    stage = AttenuationStage()
    try:
        for name, exchanges, undone in _UNDONE:
            if exchanges and camera.rows != camera.cols:
                continue
            progress(f"searching the patient in the picture as if it were {name}" if name else "searching the patient")
            stage.prepare(case, camera)  # the field of view is sought anew
            if _is_found(search, stage, np.ascontiguousarray(undone(pictures[-1])), header):
                if not name:
                    return Finding("orientation", "ok", "the case's pose was found: neither mirrored nor turned")
                return Finding("orientation", "mend", f"the picture is {name}: send it as the detector reads it out")
    finally:
        search.close()
        stage.close()
    return Finding(
        "orientation", "not_checked",
        "the case's pose was found in no way of turning the picture: is it this patient, in view, and the case's prior "
        "near the C-arm's angle?",
    )  # fmt: skip


def _is_found(search: InitialSearch, stage: AttenuationStage, counts: NDArray[Any], header: FrameHeader) -> bool:
    frame = FrameRecord.of_counts(counts, bits=header.bits, inverse=header.polarity == "inverse", open_beam=header.i0)
    stage.process(frame, Budget(1e4))
    assert frame.anatomy_mask is not None
    found = search.search(frame.pyramid, frame.anatomy_mask)
    return found is not None and _believable(found)


def _believable(found: Hypothesis) -> bool:
    e = found.estimate
    return found.agreement >= TRACKING_AGREEMENT and e.score >= TRACKING_SCORE and e.patches >= MIN_PATCHES
