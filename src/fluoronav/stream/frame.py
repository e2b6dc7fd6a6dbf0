"""What the stages share: one record per frame, and the plain results that they put into it.

A stage reads what earlier stages wrote and adds its own; stages never call one another. What a stage is: `stage.py`.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fluoronav.geometry import ArmJoints
from fluoronav.stream.breathing import Breathing
from fluoronav.stream.doubts import Doubts
from fluoronav.stream.look import Look

Float = NDArray[np.float64]
Status = Literal["searching", "tracking", "degraded", "lost", "no_model"]
Level = Literal["clear", "caution", "danger"]
AlertState = Literal["raised", "changed", "cleared", "acknowledged"]
Priority = Literal["high", "medium", "low"]
# Radius that holds 95 % of a normal error in two dimensions, in sigmas: root of chi-square's quantile, rounded up.
RADIUS_95_2D = 2.45
# Kept free at the end of a frame's time for the later stages and for sending, ms (chosen: more than they take).
RESERVE_MS = 3.0
_ALONG = np.linspace(0, 1, 9)[:, None]
# A field without which a stage that reads it can do nothing.
_NEEDED = {"needed": True}


@dataclass(frozen=True, slots=True)
class RegistrationResult:
    """Where the patient is.

    Attributes
    ----------
    T_camera_ct : ndarray, shape (4, 4)
        mm.
    score : float
        0 to 1.
    sigma : ndarray, shape (6,)
        1 sigma about the camera's axes: rotations (degrees), translations of the target (mm).
    tre_mm, tre_image_mm : float
        95 % bound of the error at the plan's target, in space and across the ray.
    age, age_ms : int, float
        Frames and time since it was measured.
    accepted : bool
        A person has accepted it.
    turn_deg : float
        95 % bound of the angle by which it may be turned; infinite where it is not known.
    bone : str
        The bone that pose and bounds are of; empty where all bones move as one.
    """

    T_camera_ct: Float
    score: float
    sigma: Float
    tre_mm: float
    tre_image_mm: float
    age: int
    age_ms: float = 0.0
    accepted: bool = False
    turn_deg: float = math.inf
    bone: str = ""


@dataclass(frozen=True, slots=True)
class ObjectPose:
    """A rigid object of the case with a pose of its own; `age` as of the frame that it is reported with."""

    name: str
    registration: RegistrationResult


@dataclass(frozen=True, slots=True)
class Curvature:
    """How a shaft is bent: a parabola between tip and tail, as far as it is in view.

    Attributes
    ----------
    sagitta_px : float
        From the middle of the chord between tail and tip to the shaft, in the picture; positive towards the direction
        of the chord turned by a quarter from columns to rows.
    sagitta_mm : float
        The same in the patient, at the depth of the tip.
    chord_mm : float
        Length of the chord.
    """

    sagitta_px: float
    sagitta_mm: float = 0.0
    chord_mm: float = 0.0

    def lateral_offset_mm(self, from_tip_mm: Float) -> Float:
        """Offset of the shaft from the straight line through its tip along the axis of its other end, mm.

        Parameters
        ----------
        from_tip_mm : ndarray, shape (n,)
            Distances from the tip.

        Returns
        -------
        ndarray, shape (n,)
        """
        t = np.minimum(from_tip_mm / max(self.chord_mm, 1e-9), 1)
        return np.asarray(4 * self.sagitta_mm * t * (2 - t), np.float64)

    @property
    def tip_angle_rad(self) -> float:
        """Angle between the shaft's directions at its tip and at its other end, rad."""
        return 8 * self.sagitta_mm / max(self.chord_mm, 1e-9)


@dataclass(frozen=True, slots=True)
class Instrument:
    """An instrument: tip and tail in the image (pixels) and in the patient (LPS mm); None where unknown.

    `method` says how an instrument that only pictures show was placed in the patient: ``two_views`` that agree, or the
    ``width`` of its shadow in one (then `sigma_mm` is centimetres along the ray). `curvature` is None where the shaft
    is straight, or no picture shows it. `age` (frames) and `age_ms` count from the last time that a picture or
    the tracker showed it.
    """

    id: str
    kind: str
    tip_px: Float | None
    tail_px: Float | None
    tip_ct: Float | None
    axis_ct: Float | None
    sigma_mm: float
    origin: Literal["image", "tracker", "fused"]
    age: int
    method: Literal["two_views", "width"] | None = None
    curvature: Curvature | None = None
    age_ms: float = 0.0

    def shaft_px(self) -> Float | None:
        """A bent shaft from tip to tail, shape (9, 2); None where it is straight, or not in view."""
        if self.curvature is None or self.tip_px is None or self.tail_px is None:
            return None
        chord = self.tip_px - self.tail_px
        normal = np.array([-chord[1], chord[0]]) / max(float(np.hypot(*chord)), 1e-9)
        return self.tip_px - _ALONG * chord + 4 * _ALONG * (1 - _ALONG) * self.curvature.sagitta_px * normal


@dataclass(frozen=True, slots=True)
class Detection:
    """An instrument as the picture alone shows it.

    Attributes
    ----------
    id : str
        Stable from frame to frame.
    kind : str
    score : float
        0 to 1.
    tip_px, tail_px, direction : ndarray, shape (2,)
        (column, row); the direction points from the tail to the tip; the tail is where it leaves the view or ends.
    width_px : float
    sigma_px, sigma_deg : float
        Of the tip and of the direction, 1 sigma.
    sagitta_px : float
        As in :class:`Curvature`; 0 where it is straight.
    age : int
        Frames since it was seen.
    age_ms : float
        Time since it was seen.
    """

    id: str
    kind: str
    score: float
    tip_px: Float
    tail_px: Float
    direction: Float
    width_px: float
    sigma_px: float
    sigma_deg: float
    sagitta_px: float
    age: int
    age_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Drift:
    """How far the external tracker is from what the pictures show.

    Attributes
    ----------
    size_mm : float
    steady : bool
        It holds still, or wanders slowly.
    corrected : bool
        It is taken out of the tracker's positions.
    """

    size_mm: float
    steady: bool
    corrected: bool


@dataclass(frozen=True, slots=True)
class Distance:
    """From an instrument to a structure, or to a region that no instrument may enter.

    Attributes
    ----------
    distance_mm, lower_mm : float
        Tip or shaft to the surface where it comes nearest, negative inside, and its 95 % lower bound.
    ahead_mm : float or None
        How far the instrument may go on in its direction before it can touch it; None where it does not.
    contact_s : float or None
        Seconds to contact at the speed of the last frames; None while it does not come nearer.
    """

    instrument: str
    structure: str
    distance_mm: float
    lower_mm: float
    nearest_ct: Float
    level: Level
    ahead_mm: float | None = None
    contact_s: float | None = None


@dataclass(frozen=True, slots=True)
class PlanProgress:
    """A planned trajectory, and the instrument against it; None where there is nothing to compare.

    `lateral_offset_mm`, shape (2,), is the tip's offset to the right and up, seen along the trajectory with the
    patient's head up (or the front, where the trajectory runs along the spine).
    """

    trajectory: str
    entry_px: Float | None
    target_px: Float | None
    angle_deg: float | None
    lateral_mm: float | None
    depth_left_mm: float | None
    lateral_offset_mm: Float | None = None


@dataclass(frozen=True, slots=True)
class Outline:
    """A structure's silhouette: closed paths, each an array of (column, row), shape (n, 2)."""

    structure: str
    color: str
    paths: tuple[Float, ...]


@dataclass(frozen=True, slots=True)
class Alert:
    """One step in the life of an alert; the fields are those of the wire protocol."""

    id: str
    t_raised: int
    state: AlertState
    priority: Priority
    kind: str
    instrument: str | None
    structure: str | None
    distance_mm: float | None
    lower_mm: float | None
    threshold_mm: float | None
    text: str


@dataclass(frozen=True, slots=True)
class ToolSample:
    """A tool as a tracker saw it at one time; the pose is None where it was hidden."""

    tool: str
    t_acq: int
    T_tracker_tool: Float | None
    error_mm: float


class Budget:
    """The time that is left: for one frame, or until the next."""

    __slots__ = ("_end",)

    def __init__(self, milliseconds: float) -> None:
        self._end = time.perf_counter() + milliseconds / 1000

    def left_ms(self) -> float:
        """Milliseconds until the deadline; negative when it has passed."""
        return (self._end - time.perf_counter()) * 1000


@dataclass(slots=True)
class FrameRecord:
    """One frame on its way through the chain.

    Attributes
    ----------
    counts : ndarray of uint8 or uint16, shape (rows, cols)
        As received; a view of the message.
    corrected : ndarray of uint8 or uint16, shape (rows, cols)
        Counts, corrected for the detector's offset, gain and dead pixels where the camera file has a calibration.
    last_status : str
        `status` of the frame before.
    pyramid : dict
        Attenuation (float32) by the image's longer side: 512, 256, 128, 64 pixels. Overwritten with the next frame.
    field_mask : ndarray of bool, shape (128, 128)
        Field of view without its penumbra: inside the aperture and between the blades.
    anatomy_mask : ndarray of bool, shape (128, 128)
        The part of `field_mask` that is compared with the CT: without metal, with a signal.
    full_field_mask : ndarray of bool, shape (512, 512)
        Up to its edge: where an instrument can be visible.
    dark : float
        Counts without X-rays.
    engine_fault : str
        Why a network does not run on what the launch file asks for; empty when it does. Written by the chain.
    tool_faults : dict
        By tool, in words: why the tracker's poses of it are not believed.
    breathing : Breathing or None
        How the patient breathes, and slips; None where that is not known.
    doubts : Doubts or None
        What the picture itself says against the pose and the tools; None where nobody asks it.
    models : dict
        SHA-256 by name of the networks that had a part in it. Written by the chain.
    joints : ArmJoints or None
        Where the C-arm stood, when its grabber says so.
    clock_offset_ns : int
        This computer's clock minus the grabber's.
    unchanged_ms : float
        For how long the picture has come again to the last bit; 0 for a new one.
    status_reason : str
        Why `status` is not tracking, in words; empty when it is.
    """

    seq: int
    t_acq: int
    t_recv: int
    counts: NDArray[Any]
    bits: int
    inverse: bool
    open_beam: float | None
    joints: ArmJoints | None = None
    clock_offset_ns: int = 0
    unchanged_ms: float = 0.0
    last_status: Status = "no_model"
    corrected: NDArray[Any] = None  # type: ignore[assignment]  # `counts`, see below
    pyramid: dict[int, NDArray[np.float32]] = field(default_factory=dict[int, NDArray[np.float32]], metadata=_NEEDED)
    field_mask: NDArray[np.bool_] | None = field(default=None, metadata=_NEEDED)
    anatomy_mask: NDArray[np.bool_] | None = field(default=None, metadata=_NEEDED)
    full_field_mask: NDArray[np.bool_] | None = field(default=None, metadata=_NEEDED)
    dark: float = 0.0
    status: Status = "no_model"
    status_reason: str = ""
    registration: RegistrationResult | None = None
    objects: tuple[ObjectPose, ...] = ()
    breathing: Breathing | None = None
    detections: tuple[Detection, ...] = ()
    look: Look | None = None
    drift: Drift | None = None
    engine_fault: str = ""
    tool_faults: dict[str, str] = field(default_factory=dict[str, str])
    doubts: Doubts | None = None
    instruments: tuple[Instrument, ...] = ()
    distances: tuple[Distance, ...] = ()
    plan: tuple[PlanProgress, ...] = ()
    outlines: tuple[Outline, ...] = ()
    alerts: list[Alert] = field(default_factory=list[Alert])
    models: dict[str, str] = field(default_factory=dict[str, str])

    @classmethod
    def of_counts(cls, counts: NDArray[Any], *, seq: int = 0, t_acq: int = 0, **others: Any) -> FrameRecord:
        """A frame that did not come by the wire, for benches, training and tests.

        Parameters
        ----------
        counts : ndarray of uint8 or uint16, shape (rows, cols)
        seq, t_acq : int
        **others
            Further fields by name; without them 16 bits, not inverse, an unknown open beam, and received at once.
        """
        received: dict[str, Any] = {"t_recv": t_acq, "bits": 16, "inverse": False, "open_beam": None}
        return cls(seq, t_acq, counts=counts, **(received | others))

    def __post_init__(self) -> None:
        if self.corrected is None:  # pyright: ignore[reportUnnecessaryComparison]
            self.corrected = self.counts

    @property
    def t_local(self) -> int:
        """The exposure by this computer's clock, ns; ages and the tracker's samples are counted by it."""
        return self.t_acq + self.clock_offset_ns

    @property
    def full_scale(self) -> int:
        """The largest count that its pixels can have."""
        return 2**self.bits - 1
