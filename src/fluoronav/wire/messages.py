"""The schemas of protocol version 1: what may stand in each message.

Incoming messages are validated against these; unknown keys are ignored, as the protocol says. Outgoing messages are
plain dictionaries, built once per frame, and the tests hold them against the same schemas.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr, field_validator

from fluoronav.geometry import ArmJoints, is_rigid

PROTOCOL_VERSION = 1
MAX_SIDE = 8192
# A clock may be wrong, but no message is from before 2001 or after 2200.
_EARLIEST_NS, _LATEST_NS = 1_000_000_000_000_000_000, 7_258_118_400_000_000_000
# Lengths that are no C-arm's are in another unit: metres, most often.
_LEAST_ARM_MM, _MOST_ARM_MM = 100.0, 5000.0
_LEAST_PIXEL_MM, _MOST_PIXEL_MM = 0.01, 10.0
# An open beam may be brighter than what a detector can count, but not by more.
_MOST_OPEN_BEAM = 2.0**24
# No tracker sees farther.
_MOST_TRACKED_MM = 20_000.0

Name = Annotated[StrictStr, Field(min_length=1, max_length=64)]
Time = Annotated[StrictInt, Field(ge=_EARLIEST_NS, le=_LATEST_NS)]
Count = Annotated[StrictInt, Field(ge=0, le=2**63 - 1)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Version = Literal[1]
Pose = Annotated[list[Number], Field(min_length=16, max_length=16)]
Pixel = Annotated[list[Number], Field(min_length=2, max_length=2)]
ArmLength = Annotated[Number, Field(ge=_LEAST_ARM_MM, le=_MOST_ARM_MM)]
PixelSize = Annotated[
    list[Annotated[Number, Field(ge=_LEAST_PIXEL_MM, le=_MOST_PIXEL_MM)]], Field(min_length=2, max_length=2)
]
Angle = Annotated[Number, Field(ge=-360, le=360)]
Point = Annotated[list[Number], Field(min_length=3, max_length=3)]


class _Message(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    v: Version


class Angles(BaseModel):
    """Joint angles of the C-arm, degrees."""

    orbital: Angle | None = None
    angular: Angle | None = None
    swivel: Angle | None = None


class FrameHeader(_Message):
    """One exposure. `t_acq` is its middle, ns since the Unix epoch."""

    source: Name
    seq: Count
    t_acq: Time
    rows: Annotated[StrictInt, Field(ge=1, le=MAX_SIDE)]
    cols: Annotated[StrictInt, Field(ge=1, le=MAX_SIDE)]
    dtype: Literal["u1", "u2"]
    bits: Annotated[StrictInt, Field(ge=1, le=16)]
    polarity: Literal["counts", "inverse"] = "counts"
    i0: Annotated[Number, Field(gt=0, le=_MOST_OPEN_BEAM)] | None = None
    pixel_mm: PixelSize | None = None
    sdd_mm: ArmLength | None = None
    sid_mm: ArmLength | None = None
    angles: Angles | None = None
    kv: Number | None = None
    ma: Number | None = None
    pulse_ms: Number | None = None
    air_kerma_ugy: Number | None = None
    collimation: Annotated[list[Pixel], Field(max_length=64)] | None = None
    camera: StrictStr | None = None
    study: StrictStr | None = None
    series: StrictStr | None = None
    instance: StrictStr | None = None

    def joints(self) -> ArmJoints | None:
        """The C-arm's joints; None unless both of the angles that turn the beam are there."""
        a = self.angles
        if a is None or a.orbital is None or a.angular is None:
            return None
        return ArmJoints(a.orbital, a.angular, a.swivel or 0.0, self.sid_mm)


class ToolPose(BaseModel):
    """One tool as a tracker sees it; the pose is None where it does not."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    id: Name
    visible: StrictBool
    T_tracker_tool: Pose | None = None
    error_mm: Annotated[Number, Field(ge=0)] | None = None

    @field_validator("T_tracker_tool")
    @classmethod
    def _rigid(cls, value: list[float] | None) -> list[float] | None:
        if value is None:
            return value
        if not is_rigid([value[i : i + 4] for i in range(0, 16, 4)]):
            raise ValueError("not a rigid, right-handed motion")
        if max(map(abs, value[3:12:4])) > _MOST_TRACKED_MM:
            raise ValueError(f"more than {_MOST_TRACKED_MM:g} mm away; no tracker sees so far")
        return value


class ToolsMessage(_Message):
    """What a tracker saw at one moment."""

    source: Name
    seq: Count
    t_acq: Time
    tools: Annotated[list[ToolPose], Field(max_length=32)]


class Request(_Message):
    """A client's request. `t` is when it was made, ns since the Unix epoch."""

    id: StrictInt | Annotated[StrictStr, Field(max_length=128)]
    t: Time | None = None
    op: Literal[
        "status",
        "case.load",
        "case.confirm",
        "case.info",
        "plan.set",
        "registration.start",
        "registration.accept",
        "registration.reject",
        "alert.acknowledge",
        "mode.set",
        "record.start",
        "record.stop",
        "stop",
    ]
    args: dict[str, Any] = Field(default_factory=dict)
    user: Annotated[StrictStr, Field(max_length=64)] = ""

    @field_validator("user")
    @classmethod
    def _printable(cls, value: str) -> str:
        if not value.isprintable():
            raise ValueError("holds characters that cannot be printed")
        return value


class Dropped(BaseModel):
    """Frames without an overlay since the overlay before, by reason."""

    network: Count
    overload: Count
    invalid: Count


class Registration(BaseModel):
    """The patient in the camera's frame, with its uncertainty."""

    T_camera_ct: Pose
    score: Annotated[Number, Field(ge=0, le=1)]
    sigma: Annotated[list[Number], Field(min_length=6, max_length=6)]
    tre_mm: Number
    tre_image_mm: Number
    age: Count
    age_ms: Annotated[Number, Field(ge=0)] | None = None
    accepted: StrictBool | None = None


class ObjectRegistration(Registration):
    """A rigid object of the case that has a pose of its own."""

    name: Name


class Instrument(BaseModel):
    """One instrument, in the image and in the patient."""

    id: Name
    kind: Name
    tip_px: Pixel | None
    tail_px: Pixel | None
    tip_ct: Point | None
    axis_ct: Point | None
    sigma_mm: Number
    origin: Literal["image", "tracker", "fused"]
    age: Count
    age_ms: Annotated[Number, Field(ge=0)] | None = None
    method: Literal["two_views", "width"] | None = None
    shaft_px: list[Pixel] | None = None


class Distance(BaseModel):
    """How far an instrument, tip or shaft, is from a structure's surface, and from touching it on its way."""

    instrument: Name
    structure: Name
    distance_mm: Number
    lower_mm: Number
    nearest_ct: Point
    level: Literal["clear", "caution", "danger"]
    ahead_mm: Number | None = None
    contact_s: Number | None = None


class PlanProgress(BaseModel):
    """A planned trajectory in the image, and the active instrument against it."""

    trajectory: Name
    entry_px: Pixel | None
    target_px: Pixel | None
    angle_deg: Number | None
    lateral_mm: Number | None
    depth_left_mm: Number | None
    beside_mm: Pixel | None = None


class Outline(BaseModel):
    """A structure's silhouette."""

    structure: Name
    color: StrictStr
    paths: list[list[Pixel]]


class Overlay(_Message):
    """One per frame taken up."""

    source: Name
    seq: Count
    t_acq: Time
    t_recv: Time
    t_sent: Time
    deadline_ms: Number
    missed: StrictBool
    dropped: Dropped
    stages: dict[str, Number]
    status: Literal["searching", "tracking", "degraded", "lost", "no_model"]
    registration: Registration | None
    objects: list[ObjectRegistration] | None = None
    instruments: list[Instrument]
    distances: list[Distance]
    plan: list[PlanProgress]
    outlines: list[Outline]
    models: dict[str, str]
    mode: Literal["live", "shadow"]


class Alert(_Message):
    """One step in the life of an alert."""

    source: Name
    id: Name
    seq: Count
    t_acq: Time | Literal[0]
    t_raised: Time
    state: Literal["raised", "changed", "cleared", "acknowledged"]
    priority: Literal["high", "medium", "low"]
    kind: Literal[
        "proximity",
        "registration_lost",
        "instrument_lost",
        "stale_frames",
        "latency",
        "engine",
        "tracker_drift",
        "storage",
        "security",
    ]
    instrument: StrictStr | None
    structure: StrictStr | None
    distance_mm: Number | None
    lower_mm: Number | None
    threshold_mm: Number | None
    text: StrictStr
    instance: StrictStr | None = None


class Latency(BaseModel):
    """Exposure to overlay sent, over the last seconds, ms."""

    p50: Number
    p99: Number
    max: Number


class FrameCounts(BaseModel):
    """Since the start."""

    received: Count
    processed: Count
    network: Count
    overload: Count
    invalid: Count
    missed: Count


class SessionState(BaseModel):
    """What people have said of the case at hand."""

    confirmed: StrictBool
    accepted: StrictBool
    plan: list[StrictStr]
    restored: StrictBool


class Health(_Message):
    """Once a second, and on a change of state."""

    source: Name
    t: Time
    state: Literal["starting", "ready", "running", "degraded", "failed"]
    fps_in: Number
    fps_out: Number
    latency_ms: Latency
    frames: FrameCounts
    clock_offset_ms: Number
    engine: dict[str, str]
    case: str
    mode: Literal["live", "shadow"]
    version: str
    instance: StrictStr | None = None
    reason: StrictStr | None = None
    session: SessionState | None = None
    unauthenticated: StrictBool | None = None
    alerts: list[Alert] | None = None
