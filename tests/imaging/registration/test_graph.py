"""The registration step as an ONNX graph, against the CPU's kernels on the embedded case."""

import re

import numpy as np
import pytest

from fluoronav.geometry import inverse, moved_about, transform_points
from fluoronav.imaging.inference import InferenceSettings, ModelError
from fluoronav.imaging.registration.gauss_newton import kernel_equations, refine
from fluoronav.imaging.registration.graph import slices_of
from fluoronav.imaging.registration.graph_backend import GraphBackend, step_model, step_models_of_case
from fluoronav.imaging.registration.model import RegistrationModel
from fluoronav.imaging.registration.patches import PatchLevel
from fluoronav.imaging.registration.similarity import normalise_patches

pytest.importorskip("onnx", reason="the extra `graph` is not installed")
pytest.importorskip("onnxruntime", reason="the extra `cpu` is not installed")

TWIST = np.array([0.01, -0.012, 0.008, 0.6, -0.4, 1.0])


class Problem:
    """A frame at one pose, patches for it, and a start beside it."""

    def __init__(self, case, camera, orbital=0.0):
        self.model = RegistrationModel.of_case(case)
        self.centre = case.target_ct
        prior = case.prior.model_copy(update={"orbital_deg": orbital})
        self.truth = prior.T_camera_ct()
        self.start = inverse(moved_about(self.centre, TWIST) @ inverse(self.truth))
        # More room than patches: what is not in use must not count.
        self.level = PatchLevel(camera, 256, 9, 60)
        self.level.choose(self.model.bones, self.truth, np.ones((128, 128), bool))
        for name in ("first_row", "first_col"):
            setattr(self.level, name, getattr(self.level, name)[:45].copy())
        self.level.directions = self.level.directions[:, : -(-45 * 81 // 64) * 64].copy()
        noise = np.random.default_rng(0).normal(0, 0.02, (256, 256)).astype(np.float32)
        self.image = self.model.tissue.render(self.truth, self.level.camera) + noise
        self.backend = GraphBackend(self.model.tissue, InferenceSettings(registration="graph"))

    def normalise(self):
        level = self.level
        args = (level.first_row, level.first_col, level.size, level.frame_hat, level.contrast[: level.count])
        normalise_patches(self.image, *args)


@pytest.fixture(scope="module", params=[0.0, 80.0], ids=["AP", "lateral"])
def problem(request, case, camera):
    return Problem(case, camera, request.param)


def test_line_integrals_derivatives_and_the_step_are_those_of_the_kernels(problem):
    problem.normalise()
    level, n = problem.level, problem.level.count
    kernel = kernel_equations(problem.model.tissue, level, problem.start, problem.centre)
    ncc, weights, model = level.ncc[:n].copy(), level.weights[:n].copy(), level.model.copy()
    graph = problem.backend.equations(level, problem.start, problem.centre)
    (step,) = problem.backend._steps.values()
    used = n * level.size**2
    of_graph = step.outputs["model"][:, :used]
    np.testing.assert_allclose(of_graph[0], model[0, :used], rtol=0.01)
    for k in range(1, 7):
        # A ray that meets the grid in step may fall into the cell beside: its slope is then another, its integral not.
        off = np.abs(of_graph[k] - model[k, :used]) / np.abs(model[k, :used]).max()
        assert np.quantile(off, 0.99) < 0.01 and off.max() < 0.03
    np.testing.assert_allclose(level.ncc[:n], ncc, atol=1e-3)
    np.testing.assert_allclose(level.weights[:n], weights, atol=1e-3)
    assert graph.patches == kernel.patches and graph.score == pytest.approx(kernel.score, abs=1e-3)
    steps = [np.linalg.solve(e.information, e.gradient) * [30, 30, 30, 1, 1, 1] for e in (kernel, graph)]
    assert np.linalg.norm(steps[1] - steps[0]) < 0.02 * np.linalg.norm(steps[0])


def test_both_backends_end_at_one_pose(problem):
    levels = [(problem.level, problem.image, 12)]
    ends = [
        refine(backend, levels, problem.start, problem.centre, tolerance_mm=0.001).T_camera_ct
        for backend in (problem.model.tissue, problem.backend)
    ]
    points = problem.centre + np.random.default_rng(1).uniform(-25, 25, (20, 3))
    a, b = (transform_points(T, points) for T in ends)
    assert np.linalg.norm(a - b, axis=1).max() < 0.05
    assert np.linalg.norm(b - transform_points(problem.truth, points), axis=1).mean() < 1.0


def test_the_stage_tracks_with_the_graph_when_the_launch_file_says_so(case, camera):
    from fluoronav.stream.frame import Budget, FrameRecord
    from fluoronav.stream.preprocessing.stage import AttenuationStage
    from fluoronav.stream.registration.stage import RegistrationStage

    stage, attenuation = RegistrationStage(InferenceSettings(registration="graph")), AttenuationStage()
    stage.prepare(case, camera)
    attenuation.prepare(case, camera)
    assert stage.engine == "onnxruntime CPUExecutionProvider (graph)"
    model = RegistrationModel.of_case(case)
    T = case.prior.T_camera_ct()
    beam = np.exp(-model.tissue.render(T, camera))
    counts = (2000 + 50000 * beam).astype(np.uint16)

    def frame():
        f = FrameRecord.of_counts(counts, seq=1)
        attenuation.process(f, Budget(1e6))
        return f

    stage.adopt(T, frame())
    for _ in range(3):
        f = frame()
        stage.process(f, Budget(1e6))
        stage.idle(f, Budget(1e6))
        stage.wait_for_background()
    assert f.registration is not None
    off = transform_points(f.registration.T_camera_ct, case.target_ct) - transform_points(T, case.target_ct)
    assert np.linalg.norm(off[:2]) < 0.3
    stage.close()


def test_an_engine_that_cannot_be_had_is_refused_by_name(problem):
    settings = InferenceSettings(engine="cuda", fallback="refuse", registration="graph")
    with pytest.raises(ModelError, match="registration-step-.*: inference.engine cuda"):
        GraphBackend(problem.model.tissue, settings).prepare(problem.level, 1)


class Vanished:
    """A session whose GPU has gone."""

    def run(self):
        raise RuntimeError("CUDA says cudaErrorDeviceUnavailable")


def test_a_gpu_that_vanishes_costs_no_step_and_the_kernels_go_on(problem):
    """Regression: the graph went on on the CPU, where each step takes a tenth of a second."""
    backend = GraphBackend(problem.model.tissue, InferenceSettings(registration="graph"))
    problem.normalise()
    before = backend.equations(problem.level, problem.start, problem.centre)

    (step,) = backend._steps.values()
    step.runner._session = Vanished()
    by_kernels = kernel_equations(problem.model.tissue, problem.level, problem.start, problem.centre)
    for _ in range(2):  # in that step, and from then on
        after = backend.equations(problem.level, problem.start, problem.centre)
        np.testing.assert_array_equal(after.information, by_kernels.information)
    np.testing.assert_allclose(after.information, before.information, rtol=0.01, atol=1e-3 * before.information.max())
    assert backend.engine == "cpu (numba)"
    assert "cudaErrorDeviceUnavailable" in backend.fault and "kernels" in backend.fault


def test_where_a_fall_back_is_refused_it_is_raised(problem):
    backend = GraphBackend(problem.model.tissue, InferenceSettings(registration="graph", fallback="refuse"))
    problem.normalise()
    backend.equations(problem.level, problem.start, problem.centre)

    (step,) = backend._steps.values()
    step.runner._session = Vanished()
    with pytest.raises(RuntimeError, match="cudaErrorDeviceUnavailable"):
        backend.equations(problem.level, problem.start, problem.centre)


@pytest.mark.parametrize(("fallback", "said"), [("warn", "inference.engine|asked for"), ("allow", "^$")])
def test_without_a_gpu_the_kernels_form_the_equations(problem, fallback, said):
    """Regression: the graph was run on the CPU, at a third of a second for each frame."""
    settings = InferenceSettings(engine="cuda", fallback=fallback, registration="graph")
    backend = GraphBackend(problem.model.tissue, settings)
    backend.prepare(problem.level, 1)
    assert backend.engine == "cpu (numba)"
    assert re.search(said, backend.fault)
    problem.normalise()
    assert backend.equations(problem.level, problem.start, problem.centre).patches > 0


def test_the_graph_of_a_case_is_the_same_whenever_it_is_made(case, problem):
    once, again = (step_model(slices_of(problem.model.tissue.grid, 1), 20, 9) for _ in range(2))
    assert once.sha256 == again.sha256  # or an engine that was built ahead would never be found
    assert len({m.sha256 for m in step_models_of_case(case)}) == 6


@pytest.mark.parametrize("target", ["sm75", "sm89", "sm120"])
def test_the_graph_is_built_for_gpus(case, target):
    pytest.importorskip("tensorrt_rtx", reason="the extra `rtx` is not installed")
    from fluoronav.imaging.inference.tensorrt import build

    grid = RegistrationModel.of_case(case).tissue.grid
    _, content = build(step_model(slices_of(grid, 1), 160, 9), "tensorrt-rtx", target)
    assert len(content) > 10_000
