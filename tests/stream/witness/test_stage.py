"""The witness on exposures of the embedded case: right poses and tools, and ones that are put wrong."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from fluoronav.lab.simulation.flat_panel import FlatPanel, ImageChain
from fluoronav.lab.simulation.scenario import Scenario
from fluoronav.lab.simulation.sequence import Anatomy, _add_tool
from fluoronav.stream.frame import Budget, FrameRecord, Instrument, RegistrationResult
from fluoronav.stream.guidance import GuidanceStage
from fluoronav.stream.pipeline.stages import make_stages
from fluoronav.stream.preprocessing.stage import AttenuationStage
from fluoronav.stream.registration.judging import FieldComparison
from fluoronav.stream.witness.stage import WitnessStage

FRAME = 230  # of the demo's sequence: the wire is well inside the field


class Scene:
    """One exposure with its wire, and the truth."""

    def __init__(self, case, camera):
        self.case, self.camera = case, camera
        scenario = Scenario()
        k = scenario.anatomy_index(FRAME)
        self.T_camera_ct, T_ct_tool = scenario.poses(case)[k], scenario.wire(case)[FRAME]
        anatomy = Anatomy(case, self.camera.scaled(0.5))
        water, bone = anatomy.paths(self.T_camera_ct)
        plain = np.kron(anatomy.transmission(water, bone), np.ones((2, 2), np.float32))
        with_wire = plain.copy()
        _add_tool(with_wire, self.camera, self.T_camera_ct @ T_ct_tool, case.tools[0], water, bone)
        chain = ImageChain(FlatPanel(), self.camera.rows, self.camera.cols, 3)
        self.exposures = {
            name: [chain.counts(beam, seed) for seed in range(6)]
            for name, beam in (("wire", with_wire), ("no wire", plain))
        }
        self.attenuation = AttenuationStage()
        self.attenuation.prepare(case, self.camera)
        T_ct_tip = T_ct_tool @ case.tools[0].T_tool_tip()
        self.tip_ct, self.axis_ct = T_ct_tip[:3, 3], T_ct_tip[:3, 2]
        along = (self.T_camera_ct[:3, :3] @ self.axis_ct)[:2]
        self.along = along / np.hypot(*along)
        self.across = np.array([-self.along[1], self.along[0]])

    def stage(self):
        stage = WitnessStage()
        stage.prepare(self.case, self.camera)
        return stage

    def frames(self, exposure="wire", count=5, **change):
        """Frames of one place, each with noise of its own."""
        return [self.frame(exposure, seed=k % 6, **change) for k in range(count)]

    def frame(self, exposure="wire", seed=0, pose_mm=(0, 0), tool_mm=0.0, along_mm=0.0, origin="tracker", **change):
        """A frame whose pose is put wrong along the camera's x and y, and its wire across and along the shaft."""
        frame = FrameRecord.of_counts(self.exposures[exposure][seed], **change)
        self.attenuation.process(frame, Budget(1e4))
        frame.pyramid = {side: picture.copy() for side, picture in frame.pyramid.items()}
        T = self.T_camera_ct.copy()
        T[:2, 3] += pose_mm
        frame.registration, frame.status = RegistrationResult(T, 1.0, np.zeros(6), 0.0, 0.0, 0), "tracking"
        tip_ct = self.tip_ct + self.T_camera_ct[:2, :3].T @ (tool_mm * self.across + along_mm * self.along)
        tool = self.case.tools[0]
        frame.instruments = (Instrument(tool.id, tool.kind, None, None, tip_ct, self.axis_ct, 0.3, origin, 0),)
        return frame


@pytest.fixture(scope="module")
def scene(case, camera):
    return Scene(case, camera)


def shown(stage, frames):
    for frame in frames:
        stage.process(frame, Budget(1e4))
    return frames[-1].doubts


def test_a_right_pose_and_a_right_tool_are_not_doubted(scene):
    stage = scene.stage()
    doubts = shown(stage, scene.frames())
    assert not doubts.pose and not doubts.tools
    assert stage.verdicts["pose_agrees"] >= 2 and stage.verdicts["tool_agrees"] >= 4


@pytest.mark.parametrize("mm", [-3.0, 3.0, 6.0])
def test_a_tool_beside_its_shadow_is_doubted_within_five_frames_with_how_far(scene, mm):
    doubts = shown(scene.stage(), scene.frames(tool_mm=mm))
    assert f"the shadow of kwire lies {abs(mm):.0f} mm beside where its tracker has it" == doubts.tools["kwire"]
    assert not doubts.pose


@pytest.mark.parametrize("mm", [-5.0, -3.0, 3.0, 5.0])
def test_a_tool_that_is_pushed_or_drawn_back_along_its_shadow_is_doubted_within_five_frames(scene, mm):
    doubts = shown(scene.stage(), scene.frames(along_mm=mm))
    assert (
        "the shadow of kwire ends" in doubts.tools["kwire"]
        and "from where its tracker has the tip" in doubts.tools["kwire"]
    )
    assert not doubts.pose


@pytest.mark.parametrize("mm", [-1.0, 1.0])
def test_a_tool_within_its_error_along_its_shadow_is_not_doubted(scene, mm):
    stage = scene.stage()
    assert not shown(stage, scene.frames(count=30, along_mm=mm)).tools
    assert stage.verdicts["tool_shadow_ends_elsewhere"] == 0


def test_a_tool_whose_tip_is_outside_the_field_is_judged_by_its_shaft_alone(scene):
    stage, frames = scene.stage(), scene.frames(along_mm=-5.0)
    tip_px = scene.camera.scaled(0.5).project(scene.T_camera_ct[:3, :3] @ scene.tip_ct + scene.T_camera_ct[:3, 3])
    col, row = np.ravel(tip_px)[:2].round().astype(int)
    for frame in frames:
        frame.full_field_mask = frame.full_field_mask.copy()
        frame.full_field_mask[row - 6 : row + 6, col - 6 : col + 6] = False
    assert not shown(stage, frames).tools and stage.verdicts["tool_agrees"] >= 4


@pytest.mark.parametrize("pose_mm", [(3, 0), (-3, 0), (0, 3), (0, -3), (2.2, -2.2)])
def test_a_pose_whose_bones_lie_beside_the_edges_is_doubted_within_five_frames(scene, pose_mm):
    stage = scene.stage()
    doubts = shown(stage, scene.frames(pose_mm=pose_mm))
    assert "the bones' edges in the picture lie" in doubts.pose
    assert not doubts.tools, "the tool is not blamed for the pose"
    assert stage.verdicts["tool_pose_doubted"] > 0


def test_at_a_low_dose_a_right_pose_is_not_doubted(case, camera):
    scene = Scene(case, camera.scaled(0.5))  # a quarter of the photons in each place
    stage = scene.stage()
    assert not shown(stage, scene.frames(count=30)).pose
    assert stage.verdicts["pose_no_contrast"] > 0


def test_what_cannot_be_said_changes_nothing_and_is_counted(scene):
    stage = scene.stage()
    away = scene.frames()
    (wire,) = away[0].instruments
    elsewhere = replace(wire, tip_ct=wire.tip_ct + 400.0)
    for frame in away:
        frame.instruments = (elsewhere,)
    assert not shown(stage, away).tools and stage.verdicts["tool_outside_field"] >= 4
    assert not shown(stage, scene.frames("no wire")).tools and stage.verdicts["tool_no_contrast"] >= 4
    before = dict(stage.verdicts)
    assert not shown(stage, scene.frames(tool_mm=3.0, unchanged_ms=40.0)).tools
    assert not shown(stage, scene.frames(tool_mm=3.0, origin="image")).tools
    assert all(before[name] == n for name, n in stage.verdicts.items() if name.startswith("tool"))


def test_metal_on_both_sides_of_a_shaft_says_nothing_of_it(scene):
    stage, frames = scene.stage(), scene.frames(tool_mm=3.0)
    for frame in frames:
        frame.pyramid[512][:] += 8.0
    assert not shown(stage, frames).tools and stage.verdicts["tool_over_metal"] >= 4


def test_a_doubt_ends_when_the_shadow_lies_under_the_shaft_again(scene):
    stage = scene.stage()
    assert shown(stage, scene.frames(tool_mm=3.0)).tools
    assert shown(stage, scene.frames()).tools and not shown(stage, scene.frames(count=10)).tools


def test_without_a_pose_its_doubt_is_over(scene):
    stage = scene.stage()
    assert shown(stage, scene.frames(pose_mm=(3, 0))).pose
    lost = scene.frame()
    lost.registration = None
    assert not shown(stage, [lost]).pose


def test_a_doubted_tool_raises_tracker_drift_and_clears_it(scene):
    stage, guidance = scene.stage(), GuidanceStage()
    guidance.prepare(scene.case, scene.camera)

    def alerts(frames):
        said = []
        for frame in frames:
            for one in (stage, guidance):
                one.process(frame, Budget(1e4))
            said += [(a.state, a.priority, a.instrument) for a in frame.alerts if a.kind == "tracker_drift"]
        return said

    assert alerts(scene.frames(tool_mm=3.0, count=6)) == [("raised", "high", "kwire")]
    assert alerts(scene.frames(count=12)) == [("cleared", "high", "kwire")]
    guidance.close()


def test_a_doubted_pose_is_degraded_with_the_witness_words(scene, case):
    registration = make_stages(["registration"])[0]
    registration.prepare(case, scene.camera)
    frame = scene.frame()
    registration.adopt(scene.T_camera_ct, frame)
    for _ in range(5):
        registration.process(frame, Budget(1e4))
    registration._comparison.found(
        SimpleNamespace(agreement=1.0, unexplained=None, estimate=SimpleNamespace(patches=0)), None
    )
    registration.process(frame, Budget(1e4))
    assert frame.status == "tracking", frame.status_reason
    wrong = scene.frames(pose_mm=(3, 0))
    frame.doubts = shown(scene.stage(), wrong)
    assert (wrong[-1].status, wrong[-1].status_reason) == ("degraded", frame.doubts.pose), "the witness says it at once"
    registration.idle(frame, Budget(1e4))
    frame.doubts = None
    registration.process(frame, Budget(1e4))
    assert (frame.status, frame.status_reason) == ("degraded", wrong[-1].doubts.pose), "the registration follows"
    registration.close()


def test_a_new_doubt_calls_for_a_comparison_with_the_whole_field(scene):
    comparison, wrong = FieldComparison(), scene.frames(pose_mm=(3, 0))
    comparison.checked_at = 5.0
    comparison.doubted(shown(scene.stage(), wrong))
    assert comparison.checked_at == 0.0
    comparison.checked_at = 6.0
    comparison.doubted(wrong[-1].doubts)
    assert comparison.checked_at == 6.0
