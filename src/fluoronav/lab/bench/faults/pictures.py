"""Frames whose content is wrong: frozen, flipped, rotated, zoomed, or of a second grabber."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from fluoronav.lab.bench.faults.judge import pose_errors
from fluoronav.lab.bench.faults.loop import AlterFrames, Loop
from fluoronav.lab.bench.faults.place import Place
from fluoronav.lab.bench.faults.row import Fault, Outcome
from fluoronav.lab.bench.faults.scene import SDD_MM
from fluoronav.lab.bench.faults.window import OVER_WITHIN_S, SAID_WITHIN_S, Window


@dataclass(frozen=True)
class ImageFaults:
    """How the faults are made, and how soon they must be over; chosen."""

    fault_s: float = 6.0  # length of each fault
    still_tracking: float = 0.1  # fraction of the overlays that may say tracking from the third second on
    found_again_s: float = 15.0  # the search starts anew after images that fit no pose
    zoom: float = 1.04  # of the announced zoom
    intruder_seq: int = 5_000_000  # ahead of the first grabber's numbers


LIMITS = ImageFaults()


def _frozen(place: Place) -> Outcome:
    held: list = []

    def same(header, pixels):
        held[:] = held or [np.array(pixels)]
        return [(header, held[0])]

    return _wrong_picture(place.loop(), same, "stale_frames", "registration_lost")


def _flipped(place: Place) -> Outcome:
    return _wrong_picture(place.loop(), lambda h, pixels: [(h, pixels[:, ::-1])], "registration_lost")


def _rotated(place: Place) -> Outcome:
    return _wrong_picture(place.loop(), lambda h, pixels: [(h, np.rot90(pixels))], "registration_lost")


def _wrong_picture(loop: Loop, change: AlterFrames, *kinds: str) -> Outcome:
    window = Window(loop)
    with loop.altering(change):
        window.last(LIMITS.fault_s)
        window.say(window.status(), window.alert(*kinds))
        later = [h.message["status"] for h in loop.since(window.begin + SAID_WITHIN_S, "overlay")]
        called = later.count("tracking") / max(len(later), 1)
        window.check(called < LIMITS.still_tracking, f"called tracking in {called:.0%} of the frames after 2 s")
    window.over()
    window.recover(LIMITS.found_again_s)
    return window.outcome()


def _zoom(place: Place) -> Outcome:
    """A zoomed image whose header states the zoom: its pose is as before, or its absence is explained."""
    loop, scene = place.loop(), place.scene
    centre = float(scene.camera.K[0, 2]), float(scene.camera.K[1, 2])
    grow = cv2.getRotationMatrix2D(centre, 0, LIMITS.zoom)
    size = scene.camera.cols, scene.camera.rows

    def announced(zoom: float) -> AlterFrames:
        pitch = scene.pixel_mm() / zoom

        def change(header, pixels):
            header = header | {"sdd_mm": SDD_MM, "pixel_mm": [pitch, pitch]}
            return [
                (header, pixels if zoom == 1 else cv2.warpAffine(pixels, grow, size, borderMode=cv2.BORDER_REPLICATE))
            ]

        return change

    with loop.altering(announced(1.0)):
        loop.wait(loop.steady, OVER_WITHIN_S, "track with an announced geometry")
        window = Window(loop)
        with loop.altering(announced(LIMITS.zoom)):
            window.last(LIMITS.fault_s)
            signs = window.status(), window.health(), window.alert("registration_lost", "stale_frames")
            said = min((m for m in signs if m is not None), default=None)
            spaces = [
                pose_errors(
                    np.array(h.message["registration"]["T_camera_ct"]).reshape(4, 4),
                    scene.sequence.T_camera_ct[loop.index_of(h.message["seq"])], scene.case.target_ct.tolist(),
                )[1]
                for h in loop.since(window.begin + 2, "overlay")
                if h.message["status"] == "tracking"
            ]  # fmt: skip
            window.say(said, within_s=None)
            if spaces:
                error = float(np.median(spaces))
                window.seen.append(f"tracking, {error:.1f} mm wrong in space")
            elif said is None:
                window.problems.append("there is no pose, and nothing says so")
        window.over()
        window.recover(LIMITS.found_again_s)
    return window.outcome()


def _of_two(reason: str) -> bool:
    return "grabber" in reason or "refused" in reason


def _two_grabbers(place: Place) -> Outcome:
    loop = place.loop()
    noise = np.random.default_rng(0).integers(2000, 20000, place.scene.sequence.frames.shape[1:], dtype=np.uint16)

    def also(header, pixels):
        return [(header, pixels), (header | {"seq": header["seq"] + LIMITS.intruder_seq}, noise)]

    window = Window(loop)
    with loop.altering(also):
        window.last(LIMITS.fault_s)
        said = [h.t for h in window.new_alerts() if "grabber" in h.message["text"].lower()]
        said += [h.t for h in loop.since(window.begin, "health") if _of_two(str(h.message.get("reason", "")).lower())]
        window.say(window.alert("security"), *said, within_s=4, what="that there are two grabbers, or frames refused")
    window.over()
    window.recover(LIMITS.found_again_s)
    return window.outcome()


FAULTS = (
    Fault("frozen-picture", "said within 2 s; measured again within 15 s", _frozen),
    Fault("picture-flipped-midstream", "not called tracking after 2 s; found again within 15 s", _flipped),
    Fault("picture-rotated", "not called tracking after 2 s; found again within 15 s", _rotated),
    Fault("zoom-announced", "used for the pose, or refused with the reason", _zoom),
    Fault(
        "two-grabbers",
        "an alert, or why frames are refused in health, within 4 s; measured again within 15 s",
        _two_grabbers,
    ),
)
