"""What stands in front of the pipeline: a rendered sequence, what is true in each of its frames, and a tracker."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fluoronav.case import Case, load_case
from fluoronav.geometry import Camera, exp_se3
from fluoronav.lab.simulation.rig import scaled_camera
from fluoronav.lab.simulation.sequence import Sequence, load_or_render
from fluoronav.paths import shipped
from fluoronav.wire.messages import PROTOCOL_VERSION

Float = NDArray[np.float64]

# Any place will do, it cancels.
_T_TRACKER_CAMERA = exp_se3([0.4, -0.7, 0.2, 350.0, -900.0, 1500.0])
TRACKER_ERROR_MM = 0.2
# In these frames of the sequence the wire's tip is 1.3 to 1.5 mm from the spinal cord: danger.
DANGER_FRAMES = (200, 299)
_STEP_MM = 2.0
SDD_MM = 1000.0


@dataclass(frozen=True)
class Scene:
    """The embedded case's sequence with its truth.

    Attributes
    ----------
    case : Case
    camera : Camera
    camera_file : Path
    sequence : Sequence
    tips_ct : ndarray, shape (n, 3)
        Of the wire, LPS, mm.
    distances_mm : list of dict
        Of the wire's surface from each watched structure, by frame.
    """

    case: Case
    camera: Camera
    camera_file: Path
    sequence: Sequence
    tips_ct: Float
    distances_mm: list[dict[str, float]]

    def tools(self, k: int, seq: int, t_acq: int) -> dict[str, Any]:
        """The tracker's message at frame `k` of the sequence.

        Parameters
        ----------
        k : int
        seq : int
        t_acq : int
            ns since the epoch.
        """
        marker, T_ct_tool = self.case.file.tracker, self.sequence.T_ct_tool
        assert marker is not None and T_ct_tool is not None
        T_tracker_ct = _T_TRACKER_CAMERA @ self.sequence.T_camera_ct[k]
        poses = {
            marker.reference: T_tracker_ct @ np.array(marker.T_ct_reference),
            self.case.tools[0].id: T_tracker_ct @ T_ct_tool[k],
        }
        return {
            "v": PROTOCOL_VERSION,
            "source": "tracker0",
            "seq": seq,
            "t_acq": t_acq,
            "tools": [
                {"id": name, "visible": True, "T_tracker_tool": T.ravel().tolist(), "error_mm": TRACKER_ERROR_MM}
                for name, T in poses.items()
            ],
        }

    def pixel_mm(self) -> float:
        """Of the detector, where its source stands `SDD_MM` away."""
        return SDD_MM / float(self.camera.K[0, 0])


def load_scene(folder: Path, size: int) -> Scene:
    """The scene; rendered with a progress bar where this computer has not done so.

    Parameters
    ----------
    folder : Path
        For the camera file.
    size : int
        Pixels along a side of a frame.
    """
    case = load_case("embedded")
    camera_file = Path(scaled_camera(shipped("calibration/demo-carm.yaml"), size, folder)).resolve()
    camera = Camera.load(camera_file)
    sequence = load_or_render(case, camera)
    assert sequence.T_ct_tool is not None
    tool = case.tools[0]
    along = np.arange(0.0, tool.length_mm, _STEP_MM)
    tips, distances = [], []
    out = np.empty((len(along), 4))
    for T in sequence.T_ct_tool @ tool.T_tool_tip():
        points = T[:3, 3] - along[:, None] * T[:3, 2]
        found = {}
        for s in case.watched:
            s.distances(points, out)
            found[s.name] = float((out[:, 0] - tool.radii_mm(along)).min())
        tips.append(T[:3, 3])
        distances.append(found)
    return Scene(case, camera, camera_file, sequence, np.array(tips), distances)
