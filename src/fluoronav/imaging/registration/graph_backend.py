"""Tracking by the registration step as a graph, on whatever engine runs it."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fluoronav.geometry import inverse, moved_about
from fluoronav.imaging.inference import InferenceSettings
from fluoronav.imaging.inference.manifest import Approved
from fluoronav.imaging.inference.runner import Runner
from fluoronav.imaging.inference.verify import compared
from fluoronav.imaging.projector import Projector, dominant_axis
from fluoronav.imaging.registration.gauss_newton import Equations, kernel_equations
from fluoronav.imaging.registration.graph import pose_inputs, slices_of, step_graph
from fluoronav.imaging.registration.model import RegistrationModel
from fluoronav.imaging.registration.patches import PatchLevel
from fluoronav.imaging.registration.search import COARSE_SIDE, FINE_SIDE
from fluoronav.imaging.registration.similarity import normalise_patches

log = logging.getLogger("fluoronav")

Float = NDArray[np.float64]
Float32 = NDArray[np.float32]

_VOLUME = ("volume", "slope_u", "slope_v")
# Patches and pixels along a side, at the coarse and at the fine resolution of tracking.
TRACKING_PATCHES = ((60, 8), (160, 9))
# Of the verified steps: where they start, as a twist about the target, rad and mm.
_ASIDE = np.array([0.01, -0.012, 0.008, 0.6, -0.4, 1.0])
# Engines that run the graph on a CPU, for who asks for one of them by name, and what their providers are called.
_ON_A_CPU = {"cpu": "CPUExecutionProvider", "openvino": "OpenVINO"}
_OUTPUTS = ("model", "information", "gradient", "ncc", "weights")


def step_model(volume: dict[str, Float32], patches: int, size: int) -> Approved:
    """The graph for a volume, as a model that engines can be built from.

    Parameters
    ----------
    volume : dict of str to ndarray
        Of :func:`.graph.slices_of`, along one axis.
    patches, size : int
        Of the patch level.
    """
    slices, _, rows, cols = volume["volume"].shape
    content = step_graph((slices, rows, cols), patches, size)
    n = patches * size * size
    inputs = {name: list(a.shape) for name, a in volume.items()} | {
        "T_camera_ct": [4, 4], "axes": [3, 3], "parity": [1], "centre": [3], "spacing": [1], "rays": [2, n],
        "frame_hat": [patches, size * size], "valid": [patches],
    }  # fmt: skip
    outputs = {"model": [7, n], "information": [6, 6], "gradient": [6], "ncc": [patches], "weights": [patches]}
    # Made here, from this program's own code: its hash is that of what it is.
    name = f"registration-step-{slices}x{rows}x{cols}-{patches}x{size}.onnx"
    return Approved(Path(name), content, hashlib.sha256(content).hexdigest(), inputs, outputs)


def step_models_of_case(case) -> list[Approved]:
    """The graphs that tracking a case may need: its two patch levels, along each axis.

    Parameters
    ----------
    case : Case
    """
    grid = RegistrationModel.of_case(case).tissue.grid
    volumes = [slices_of(grid, axis) for axis in range(3)]
    return [step_model(volume, *patches) for volume in volumes for patches in TRACKING_PATCHES]


def verified_steps(case, camera, settings: InferenceSettings) -> list[dict[str, Any]]:
    """Each step of tracking, from the pose that a case expects, on an engine and on the CPU.

    Parameters
    ----------
    case : Case
    camera : Camera
    settings : InferenceSettings

    Returns
    -------
    list of dict
        Rows of :func:`fluoronav.imaging.inference.verify.verify`.
    """
    model = RegistrationModel.of_case(case)
    T = case.prior.T_camera_ct()
    rows = []
    for side, (count, size) in zip((COARSE_SIDE, FINE_SIDE), TRACKING_PATCHES, strict=True):
        level = PatchLevel(camera, side, size, count)
        level.choose(model.bones, T, np.ones((COARSE_SIDE, COARSE_SIDE), bool))
        args = (level.first_row, level.first_col, level.size, level.frame_hat, level.contrast[: level.count])
        normalise_patches(model.tissue.render(T, level.camera), *args)
        # Beside the pose, where there is a step to take.
        start = inverse(moved_about(case.target_ct, _ASIDE) @ inverse(T))

        def load(
            settings: InferenceSettings, level: PatchLevel = level, start: Float = start
        ) -> tuple[Runner, dict[str, Float32]]:
            backend = GraphBackend(model.tissue, settings)
            backend.equations(level, start, case.target_ct)
            (step,) = backend._steps.values()
            return step.runner, {name: step.made[name] for name in ("information", "gradient", "ncc", "weights")}

        rows.append(compared(f"registration step, {count} patches", load, settings))
    return rows


@dataclass
class _Step:
    runner: Runner
    given: dict[str, Float32]
    made: dict[str, Float32]


class GraphBackend:
    """Forms the equations of :func:`fluoronav.imaging.registration.gauss_newton.refine_views` by a graph.

    On a CPU the graph takes ten times as long as the kernels, which do the same: they go on where an engine cannot be
    had, or fails in the stream. Who asks for the engine ``cpu`` or ``openvino`` gets the graph there, for comparison.

    Parameters
    ----------
    model : Projector
        Of the registration's model.
    inference : InferenceSettings
        Its engine and fall-back, as for the networks.

    Attributes
    ----------
    engine : str
        What forms the equations now.
    fault : str
        Why that is not what was asked for; empty when it is, or when nobody wants to know.

    Raises
    ------
    ModelError
        From :meth:`prepare`: the engine cannot be had and a fall-back is refused.
    """

    def __init__(self, model: Projector, inference: InferenceSettings) -> None:
        # Sums over all pixels overflow in half precision.
        self._model, self._inference = model, inference.model_copy(update={"precision": "fp32"})
        self._steps: dict[tuple[int, int, int], _Step] = {}
        self._volumes: dict[int, dict[str, Float32]] = {}
        self._by_kernels = False
        self.engine, self.fault = "none", ""

    def prepare(self, level: PatchLevel, dominant: int) -> None:
        """Loads the graph for a level's patches and one axis; done before the first frame for what is expected."""
        if self._by_kernels:
            return
        if dominant not in self._volumes:  # both levels of tracking read it
            self._volumes[dominant] = slices_of(self._model.grid, dominant)
        volume = self._volumes[dominant]
        model = step_model(volume, level.capacity, level.size)
        given = volume | {k: np.zeros(s, np.float32) for k, s in model.inputs.items() if k not in volume}
        made = {name: np.zeros(model.outputs[name], np.float32) for name in _OUTPUTS}
        runner = Runner(model, self._inference, given, made, _VOLUME, spare=False)
        if not runner.on_gpu and _ON_A_CPU.get(self._inference.engine, "a GPU") not in runner.provider:
            self._give_up(runner.fault)
            self._steps.clear()
            self._volumes.clear()
            return
        self.engine = f"{runner.provider} (graph)"
        self._steps[dominant, level.capacity, level.size] = _Step(runner, given, made)

    def equations(self, level: PatchLevel, T_camera_ct: Float, centre_ct: Float) -> Equations | None:
        """The equations of one view; None where no patch has a say. Writes the level's ``ncc`` and ``weights``."""
        key = dominant_axis(T_camera_ct), level.capacity, level.size
        if key not in self._steps:  # the C-arm has turned past the diagonal
            self.prepare(level, key[0])
        if self._by_kernels:
            return kernel_equations(self._model, level, T_camera_ct, centre_ct)
        step = self._steps[key]
        given, made, n = step.given, step.made, level.count
        used = n * level.size**2
        for name, value in pose_inputs(self._model.grid, T_camera_ct, centre_ct, key[0]).items():
            given[name][...] = value
        given["rays"][:, :used] = level.directions[:, :used]
        given["rays"][:, used:] = level.directions[:, :1]
        given["frame_hat"][:n] = level.frame_hat[:used].reshape(n, -1)
        given["frame_hat"][n:] = 0
        given["valid"][:] = np.arange(len(given["valid"])) < n
        try:
            step.runner.run()
        except Exception as error:
            if self._inference.fallback == "refuse":
                raise
            self._give_up(step.runner.failed_by(error))
            return kernel_equations(self._model, level, T_camera_ct, centre_ct)
        level.ncc[:n], level.weights[:n] = made["ncc"][:n], made["weights"][:n]
        total = float(level.weights[:n].sum())
        if total <= 0:
            return None
        score = float(level.weights[:n] @ level.ncc[:n]) / total
        information = made["information"].astype(np.float64)
        return Equations(
            (information + information.T) / 2, made["gradient"].astype(np.float64), score,
            int(np.count_nonzero(level.weights[:n])),
        )  # fmt: skip

    def _give_up(self, why: str) -> None:
        """The kernels go on, from this very step. What is loaded stays: to free it may wait for a GPU that is gone."""
        self._by_kernels, self.engine = True, "cpu (numba)"
        if why:
            self.fault = f"{why}; the CPU's kernels go on"
            log.error(self.fault)
