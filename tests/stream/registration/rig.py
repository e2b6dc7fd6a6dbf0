"""The registration's stages, and exposures for them through an X-ray model that they do not know."""

import cv2

from fluoronav.geometry import ArmJoints, inverse
from fluoronav.lab.bench.subjects import errors_mm
from fluoronav.lab.simulation.flat_panel import FlatPanel, ImageChain
from fluoronav.lab.simulation.scenario import Scenario
from fluoronav.lab.simulation.sequence import Anatomy
from fluoronav.stream.frame import Budget, FrameRecord
from fluoronav.stream.preprocessing.stage import AttenuationStage
from fluoronav.stream.registration.stage import RegistrationStage

POSES = (0, 6, 12, 18, 24)


def exposed(beams, camera, **settings):
    """Exposures of them, with their true poses."""
    chain = ImageChain(FlatPanel(**settings), camera.rows, camera.cols, 3)
    return [(chain.counts(beam, k), pose) for k, (beam, pose) in zip(POSES, beams, strict=False)]


def arriving(anatomy, camera, T):
    """What arrives at each pixel, from an anatomy at half of the camera's resolution."""
    beam = anatomy.transmission(*anatomy.paths(T))
    return cv2.resize(beam, (camera.cols, camera.rows), interpolation=cv2.INTER_CUBIC)


class Rig:
    """The two stages, and frames for them."""

    def __init__(self, case, camera):
        self.attenuation, self.registration = AttenuationStage(), RegistrationStage()
        self.attenuation.prepare(case, camera)
        self.registration.prepare(case, camera)
        self.seq = 0

    def show(self, counts, milliseconds=1000.0, wait=True, joints=None):
        self.seq += 1
        frame = FrameRecord.of_counts(counts, seq=self.seq, joints=joints)
        for stage in (self.attenuation, self.registration):
            stage.process(frame, Budget(milliseconds))
        for stage in (self.attenuation, self.registration):
            stage.idle(frame, Budget(1e6))
        for job in (self.registration.jobs.search, self.registration.jobs.placing, self.registration.jobs.check):
            if wait and job is not None:
                job.exception()
        return frame


def errors(case, T, truth):
    """Across the ray and along it at the target, mm."""
    return errors_mm(T, truth, case.target_ct[None])[1:]


class Arm:
    """Exposures of a patient who holds still from any angle of the C-arm."""

    def __init__(self, case, camera):
        self.case, self.camera = case, camera
        self.anatomy = Anatomy(case, camera.scaled(0.5))
        self.chain = ImageChain(FlatPanel(), camera.rows, camera.cols, 3)
        still = Scenario(anatomy_frames=1)
        self.T_room_ct = (
            inverse(still.joints(case)[0].T_camera_room(case.prior.source_to_isocentre_mm)) @ still.poses(case)[0]
        )

    def shot(self, orbital, seed=0):
        joints = ArmJoints(orbital, 0.0)
        T = joints.T_camera_room(self.case.prior.source_to_isocentre_mm) @ self.T_room_ct
        return self.chain.counts(arriving(self.anatomy, self.camera, T), seed), joints, T


def shown_at(rig, counts, t_ms, milliseconds=1000.0, unchanged_ms=0.0, wait_for="all"):
    """A frame of a stream: with its time, and for how long its picture has been the same."""
    rig.seq += 1
    frame = FrameRecord.of_counts(counts, seq=rig.seq, t_acq=t_ms * 1_000_000, unchanged_ms=unchanged_ms)
    for stage in (rig.attenuation, rig.registration):
        stage.process(frame, Budget(milliseconds))
    for stage in (rig.attenuation, rig.registration):
        stage.idle(frame, Budget(1e6))
    if wait_for == "all":
        rig.registration.wait_for_background()
    elif rig.registration.jobs.check is not None:
        rig.registration.jobs.check.exception()
    return frame
