"""The simulated optical tracker: its marker on the patient, and its message at a frame of a sequence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fluoronav.case import Case, CaseFile
from fluoronav.geometry import exp_se3, inverse
from fluoronav.lab.simulation.sequence import Sequence
from fluoronav.wire.values import PROTOCOL_VERSION

Float = NDArray[np.float64]

# The tracker's frame from the X-ray source; chosen: it cancels, since both markers are measured in it.
T_TRACKER_CAMERA = exp_se3([0.4, -0.7, 0.2, 350.0, -900.0, 1500.0])
# From the first planned entry to the marker, CT axes; chosen: as in the embedded case, near the wound and beside it.
_ENTRY_TO_MARKER_MM = (25.0, 15.0, 70.0)


def marker_on_patient(file: CaseFile) -> Float:
    """``T_ct_reference`` of the simulated marker, shape (4, 4), mm: the case's, else beside the first planned entry.

    Parameters
    ----------
    file : CaseFile
        With a plan.
    """
    if file.tracker is not None and file.tracker.T_ct_reference is not None:
        return np.array(file.tracker.T_ct_reference)
    T = np.eye(4)
    T[:3, 3] = np.add(file.plan[0].entry_ct, _ENTRY_TO_MARKER_MM)
    return T


def tracker_message(
    case: Case,
    sequence: Sequence,
    k: int,
    seq: int,
    t_acq: int,
    source: str,
    error_mm: float,
    measured: Callable[[Float], Float] = lambda T: T,
) -> dict[str, Any]:
    """The poses of the patient's marker and of the case's first tool.

    Parameters
    ----------
    case : Case
        With a tracker.
    sequence : Sequence
        With a tool.
    k : int
        Frame of the sequence.
    seq, t_acq : int
        Number and time, ns since the epoch.
    source : str
        The tracker's name in topics.
    error_mm : float
        Stated error of every pose.
    measured : callable
        From a true pose, ``T_tracker_tool`` (4, 4), to the measured one.
    """
    marker = case.file.tracker
    assert marker is not None and sequence.T_ct_tool is not None
    T_tracker_ct = T_TRACKER_CAMERA @ sequence.T_camera_ct[k]
    poses = {
        marker.reference: T_tracker_ct @ marker_on_patient(case.file),
        case.tools[0].id: T_tracker_ct @ sequence.T_ct_tool[k] @ inverse(case.tools[0].T_tool_tip()),
    }
    return {
        "v": PROTOCOL_VERSION,
        "source": source,
        "seq": seq,
        "t_acq": t_acq,
        "tools": [
            {"id": name, "visible": True, "T_tracker_tool": measured(T).ravel().tolist(), "error_mm": error_mm}
            for name, T in poses.items()
        ],
    }
