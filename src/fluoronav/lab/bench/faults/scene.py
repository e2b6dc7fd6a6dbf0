"""Input of the pipeline under test: a rendered sequence, the truth of each of its frames, and a tracker."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fluoronav.case import Case, load_case
from fluoronav.geometry import Camera
from fluoronav.lab.simulation.rig import scaled_camera
from fluoronav.lab.simulation.sequence import Sequence, load_or_render
from fluoronav.lab.simulation.tracker import tracker_message
from fluoronav.paths import shipped

Float = NDArray[np.float64]

TRACKER_ERROR_MM = 0.2  # stated for every pose; chosen: as optical trackers state it
# Frames of the sequence in which the wire's tip is 1.3 to 1.5 mm from the spinal cord, i.e. in danger.
DANGER_FRAMES = (200, 299)
_STEP_MM = 2.0  # between points of the wire at which distances are taken; chosen
SDD_MM = 1000.0  # source to detector, of the demo's camera


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
        Tip of the wire, LPS, mm.
    distances_mm : list of dict
        By frame: distance of the wire's surface from each watched structure.
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
        return tracker_message(self.case, self.sequence, k, seq, t_acq, "tracker0", TRACKER_ERROR_MM)

    def pixel_mm(self) -> float:
        """Pixel pitch of the panel, mm, at `SDD_MM` from the source."""
        return SDD_MM / float(self.camera.K[0, 0])


def load_scene(folder: Path, size: int) -> Scene:
    """The scene of the embedded case, rendered on its first use.

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
