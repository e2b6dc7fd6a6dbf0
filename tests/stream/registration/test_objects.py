"""Bones with a pose of their own, in the stream: a vertebra that lies otherwise than in the CT."""

from dataclasses import replace
from types import SimpleNamespace

import cv2
import msgspec
import numpy as np
import pytest

from fluoronav.case import Bones
from fluoronav.case.file import RigidObject
from fluoronav.imaging.registration.model import RegistrationModel
from fluoronav.imaging.registration.target_bone import LayeredModel, Layers
from fluoronav.lab.bench.bones import bone_points_ct
from fluoronav.lab.bench.subjects import errors_mm, view_poses
from fluoronav.lab.simulation.flat_panel import FlatPanel, ImageChain
from fluoronav.lab.simulation.moved_bone import with_moved_bone
from fluoronav.lab.simulation.sequence import Anatomy
from fluoronav.stream.frame import Budget, FrameRecord, ObjectPose
from fluoronav.stream.pipeline.messages import overlay_message
from fluoronav.stream.preprocessing.stage import AttenuationStage
from fluoronav.stream.registration.objects import ObjectPoses
from fluoronav.stream.registration.result import as_result
from fluoronav.stream.registration.stage import RegistrationStage
from fluoronav.wire import Overlay, encode

MOVED, STILL = "vertebrae_T8", "vertebrae_T6"


@pytest.fixture(scope="module")
def bent(case, camera):
    """The case with two objects, and frames of the patient whose T8 has moved, with the truth."""
    labels = {s.name: s.label for s in case.structures}
    named = replace(case, objects=tuple(Bones(n, (labels[n],), None) for n in (MOVED, STILL)))
    patient, T_ct_bone = with_moved_bone(case, MOVED, np.array([0, 0.03, 0, 2.5, 0, 0]))
    anatomy, chain = Anatomy(patient, camera.scaled(0.5)), ImageChain(FlatPanel(), camera.rows, camera.cols, 3)
    shots = []
    for k, T in enumerate(view_poses(case, 5, 31)):
        beam = anatomy.transmission(*anatomy.paths(T))
        beam = cv2.resize(beam, (camera.cols, camera.rows), interpolation=cv2.INTER_CUBIC)
        shots.append((chain.counts(beam, k), T))
    return named, shots, T_ct_bone


def test_each_bone_gets_its_pose_and_the_one_that_moved_is_found_where_it_is(bent, camera):
    case, shots, T_ct_bone = bent
    attenuation, registration = AttenuationStage(), RegistrationStage()
    attenuation.prepare(case, camera)
    registration.prepare(case, camera)
    points, common, found, still = bone_points_ct(case, MOVED), [], [], []
    for counts, T in shots:
        frame = FrameRecord.of_counts(counts)
        attenuation.process(frame, Budget(1000))
        registration.restart()
        registration.adopt(T, frame)
        for _ in range(8):
            registration.process(frame, Budget(1000))
            registration.idle(frame, Budget(1e6))
            registration.wait_for_background()
        assert frame.status == "tracking"
        own = {o.name: o.registration for o in frame.objects}
        assert set(own) == {MOVED, STILL}
        assert all(1 <= r.age <= 3 for r in own.values())
        common.append(errors_mm(frame.registration.T_camera_ct, T @ T_ct_bone, points)[1])
        found.append(errors_mm(own[MOVED].T_camera_ct, T @ T_ct_bone, points)[1])
        still.append(errors_mm(own[STILL].T_camera_ct, T, bone_points_ct(case, STILL))[1])
        assert found[-1] < 2 * own[MOVED].tre_image_mm
    registration.close()
    assert np.median(common) > 1.5 and np.median(found) < 0.6 * np.median(common)
    assert np.median(still) < 0.7


def test_objects_are_in_the_overlay_only_where_the_case_names_them(bent, camera):
    _, [(counts, _), *_], _ = bent
    frame = FrameRecord.of_counts(counts, seq=1, t_acq=1_700_000_000 * 10**9)
    dropped = {"network": 0, "overload": 0, "invalid": 0}
    assert overlay_message(frame, "carm0", 33.3, dropped, {}, "live").objects is msgspec.UNSET
    frame.objects = (ObjectPose("T8", as_result(np.eye(4), 0.9, np.eye(6), np.ones(3))),)
    message = overlay_message(frame, "carm0", 33.3, dropped, {}, "live")
    message.t_sent = frame.t_recv
    assert msgspec.msgpack.decode(encode(message), type=Overlay).objects[0].name == "T8"


def test_a_bone_that_cannot_be_seen_has_no_pose(bent, camera):
    case, [(counts, T), *_], _ = bent
    attenuation, registration = AttenuationStage(), RegistrationStage()
    attenuation.prepare(case, camera)
    registration.prepare(case, camera)
    frame = FrameRecord.of_counts(counts)
    attenuation.process(frame, Budget(1000))
    objects = registration._objects
    nothing = np.zeros_like(frame.field_mask)
    for image, field_mask in (
        (frame.pyramid[256], nothing),
        (np.random.default_rng(1).normal(size=(256, 256)), frame.field_mask),
    ):
        measured = objects.measure(image.astype(np.float32), field_mask, T)
        assert measured.registration is None
        objects.take(measured)
        assert objects.poses(T) == ()
    registration.close()


def test_an_object_that_is_no_layer_lies_with_the_rest_of_a_patient_who_has_moved_in_parts(case, camera, monkeypatch):
    """Regression: it was taken for lying with the target bone, and a chest that had breathed for one at rest."""
    tissue = RegistrationModel.of_case(case).tissue
    layers = Layers.of_case(case, tissue)
    entries = (
        RigidObject(name="rib", structures=("rib_left_8", "rib_right_8")),
        RigidObject(name="spine", structures=tuple(bone.name for bone in layers.bones)),
    )
    neighbour = layers.bones[1]
    poses = ObjectPoses(tissue, (("rib", neighbour.projector), ("spine", neighbour.projector)), camera, layers, entries)
    T_ct_rest, bend = np.eye(4), np.array([0.001, 0, 0])
    T_ct_rest[2, 3] = 8.0
    how = SimpleNamespace(model=lambda of: LayeredModel(of, bend, T_ct_rest), T_ct_rest=T_ct_rest)
    starts = []
    monkeypatch.setattr(poses, "_measured", lambda *args: starts.append(args[-1]))
    for _ in entries:
        poses.measure(np.zeros((256, 256), np.float32), np.ones((256, 256), bool), np.eye(4), how)
    np.testing.assert_array_equal(starts[0], T_ct_rest)
    # Of several layers, the one at the middle of the object's bones tells.
    np.testing.assert_array_equal(starts[1], LayeredModel(layers, bend).T_ct_bone(neighbour))
