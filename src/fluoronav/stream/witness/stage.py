"""The witness as a stage: doubts of the pose and of tracked tools, by the picture alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fluoronav.case import Case, Structure
from fluoronav.case.label_checks import is_named_as_bone
from fluoronav.geometry import Camera, transform_points
from fluoronav.stream import reasons
from fluoronav.stream.doubts import Doubts
from fluoronav.stream.frame import Budget, FrameRecord
from fluoronav.stream.witness.bone_edges import BoneEdgeWitness
from fluoronav.stream.witness.evidence import LIMITS, Evidence, Verdict
from fluoronav.stream.witness.shaft import ShaftWitness

_SIDE = 512  # of the pyramid's picture in which shafts are looked for
# What may be counted, so that nothing is allocated with a frame.
_POSE = ("agrees", "edges_beside", "no_bones", "few_edges", "begun", "no_contrast")
_TOOL = (
    "agrees", "shadow_beside", "shadow_ends_elsewhere", "outside_field", "over_metal", "seen_end_on", "no_contrast",
    "pose_doubted",
)  # fmt: skip
_HOW = {
    "shadow_beside": "lies {:.0f} mm beside where its tracker has it",
    "shadow_ends_elsewhere": "ends {:.0f} mm from where its tracker has the tip",
}
_POSE_DOUBTED = Verdict("cannot_say", "pose_doubted")


class WitnessStage:
    """Asks every frame whether a shadow lies under each tracked tool, and bone edges under the projected bones.

    It knows neither the network that finds instruments nor the registration's own score. What a frame cannot say
    changes nothing. A tool is not blamed for a pose that is doubted.
    """

    name = "witness"
    engine = "cpu (numba)"
    reads = frozenset({"pyramid", "full_field_mask", "registration", "status", "instruments"})
    writes = frozenset({"doubts", "status", "status_reason"})

    def __init__(self) -> None:
        self.verdicts = {f"pose_{r}": 0 for r in _POSE} | {f"tool_{r}": 0 for r in _TOOL}
        self._tools: dict[str, tuple[ShaftWitness, Evidence]] = {}
        self._pose = Evidence(LIMITS.against_pose, LIMITS.unclear_leaves)
        self._doubts = Doubts()

    def prepare(self, case: Case, camera: Camera, progress: Callable[[str], None] = lambda _: None) -> None:
        progress("witness: bones")
        small = camera.scaled(_SIDE / max(camera.rows, camera.cols))
        T_camera_ct = np.ascontiguousarray(case.prior.T_camera_ct())
        depth_mm = float(transform_points(T_camera_ct, case.target_ct)[2])
        self._bones = BoneEdgeWitness(_rigid_bones(case), camera, case.target_ct, depth_mm)
        self._tools = {tool.id: (ShaftWitness(tool, small), Evidence(LIMITS.against_tool)) for tool in case.tools}
        self._pose, self._doubts = Evidence(LIMITS.against_pose, LIMITS.unclear_leaves), Doubts()
        # Compiles.
        pyramid = {side: np.zeros(_shape(camera, side), np.float32) for side in (512, 256, 128)}
        field = np.ones(pyramid[_SIDE].shape, bool)
        self._bones.look(pyramid, field, T_camera_ct)
        self._bones.forget()
        for witness, _ in self._tools.values():
            witness.warm(pyramid[_SIDE], field)

    def process(self, frame: FrameRecord, budget: Budget) -> None:
        changed = False
        if frame.registration is None:
            changed = self._pose.forget()
            self._bones.forget()
        elif not frame.unchanged_ms and frame.full_field_mask is not None:
            changed = self._look(frame, frame.registration.T_camera_ct)
        if changed:
            self._doubts = self._in_words()
        frame.doubts = self._doubts
        if self._doubts.pose and frame.status == "tracking":
            # The registration follows with the next frame.
            frame.status, frame.status_reason = "degraded", self._doubts.pose

    def start_again(self) -> None:
        """Forgets all doubts; for benches."""
        self._pose.forget()
        self._bones.forget()
        for _, evidence in self._tools.values():
            evidence.forget()
        self._doubts = Doubts()

    def idle(self, frame: FrameRecord, budget: Budget) -> None: ...

    def close(self) -> None: ...

    def _look(self, frame: FrameRecord, T_camera_ct) -> bool:
        """Takes what a frame says; returns whether a doubt has come or gone."""
        assert frame.full_field_mask is not None
        verdict = self._bones.look(frame.pyramid, frame.full_field_mask, T_camera_ct)
        self.verdicts[f"pose_{verdict.reason}"] += 1
        changed = self._pose.take(verdict)
        if changed and self._pose.doubted:
            for _, evidence in self._tools.values():
                evidence.forget()
        for instrument in frame.instruments:
            if instrument.origin == "image" or instrument.tip_ct is None or instrument.axis_ct is None:
                continue
            witness, evidence = self._tools[instrument.id]
            if self._pose.doubted or self._bones.lead > 0:
                verdict_of_tool = _POSE_DOUBTED
            else:
                verdict_of_tool = witness.look(
                    frame.pyramid[_SIDE], frame.full_field_mask, T_camera_ct, instrument.tip_ct, instrument.axis_ct
                )
            self.verdicts[f"tool_{verdict_of_tool.reason}"] += 1
            changed = evidence.take(verdict_of_tool) or changed
        return changed

    def _in_words(self) -> Doubts:
        pose = ""
        if self._pose.doubted:
            pose = reasons.EDGES_BESIDE.format(mm=self._pose.offset_mm)
        tools = {
            name: f"the shadow of {name} {_HOW[evidence.reason].format(evidence.offset_mm)}"
            for name, (_, evidence) in self._tools.items()
            if evidence.doubted
        }
        return Doubts(pose, tools)


def _rigid_bones(case: Case) -> list[Structure]:
    """The bones that the registration follows."""
    if case.file.rigid is not None:
        return [s for s in case.structures if s.name in case.file.rigid.structures]
    own = {name for o in case.file.objects for name in o.structures}
    return [s for s in case.structures if is_named_as_bone(s.name) and s.name not in own]


def _shape(camera: Camera, side: int) -> tuple[int, int]:
    longest = max(camera.rows, camera.cols)
    return max(round(camera.rows * side / longest), 1), max(round(camera.cols * side / longest), 1)
