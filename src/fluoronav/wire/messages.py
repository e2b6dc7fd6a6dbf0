"""The schemas of protocol version 1: what each message holds, with units and limits.

Every message is defined here once. Incoming messages are validated against these structs (`fluoronav.wire.codec`),
outgoing ones are made of them, and the tables of ``docs/wire-protocol.md`` are generated from them
(`fluoronav.wire.tables`). The order of the fields is the order of the keys on the wire. An optional field that is
``UNSET`` is left out.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from fluoronav.geometry import ArmJoints, is_rigid
from fluoronav.wire.motion import Breathing
from fluoronav.wire.values import (
    MAX_SIDE,
    MOST_TOOLS,
    Angle,
    ArmLength,
    Corners,
    Count,
    Exposed,
    Fraction,
    FrameNumber,
    Mode,
    Name,
    NotNegative,
    Number,
    OpenBeam,
    Pixel,
    PixelSize,
    Point,
    Pose,
    Source,
    Time,
    TimeOrZero,
    Version,
    doc,
)  # fmt: skip

# No tracker sees farther.
_MOST_TRACKED_MM = 20_000.0


class Message(msgspec.Struct, kw_only=True):
    """What the pipeline sends."""

    v: Version


class Received(msgspec.Struct, kw_only=True, frozen=True):
    """What the pipeline receives."""

    v: Version


class Angles(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """Joint angles of the C-arm."""

    orbital: Annotated[Angle | None, doc("degrees")] = None
    angular: Annotated[Angle | None, doc("degrees")] = None
    swivel: Annotated[Angle | None, doc("degrees")] = None


class FrameHeader(Received, kw_only=True, frozen=True, omit_defaults=True):
    """One exposure."""

    source: Source
    seq: Annotated[Count, doc("starts anywhere, +1 per exposure")]
    t_acq: Exposed
    rows: Annotated[int, Meta(ge=1, le=MAX_SIDE, description="height of the picture")]
    cols: Annotated[int, Meta(ge=1, le=MAX_SIDE, description="width of the picture")]
    dtype: Annotated[Literal["u1", "u2"], doc("type of a pixel: unsigned, 1 or 2 bytes")]
    bits: Annotated[int, Meta(ge=1, le=16, description="bits stored")]
    polarity: Annotated[Literal["counts", "inverse"], doc("`counts` (the default): bright is more X-ray")] = "counts"
    i0: Annotated[OpenBeam | None, doc("open-beam count")] = None
    pixel_mm: Annotated[PixelSize | None, doc("[dx, dy], size of a pixel at the detector, mm")] = None
    sdd_mm: Annotated[ArmLength | None, doc("source to detector, mm")] = None
    sid_mm: Annotated[ArmLength | None, doc("source to isocentre, mm; less than `sdd_mm`")] = None
    angles: Annotated[Angles | None, doc("joint angles of the C-arm, each optional")] = None
    kv: Annotated[Number | None, doc("tube voltage, kV")] = None
    ma: Annotated[Number | None, doc("tube current, mA")] = None
    pulse_ms: Annotated[Number | None, doc("length of the pulse, ms")] = None
    air_kerma_ugy: Annotated[Number | None, doc("air kerma, µGy")] = None
    collimation: Annotated[Corners | None, doc("corners of the collimated field, px")] = None
    replayed: Annotated[bool, doc("whether it is sent again from a recording: no patient lies there")] = False
    camera: Annotated[str | None, doc("name of a calibration")] = None
    study: Annotated[str | None, doc("study instance UID")] = None
    series: Annotated[str | None, doc("series instance UID")] = None
    instance: Annotated[str | None, doc("SOP instance UID")] = None

    def joints(self) -> ArmJoints | None:
        """The C-arm's joints; None unless both of the angles that turn the beam are there."""
        a = self.angles
        if a is None or a.orbital is None or a.angular is None:
            return None
        return ArmJoints(a.orbital, a.angular, a.swivel or 0.0, self.sid_mm)


class ToolPose(msgspec.Struct, kw_only=True, frozen=True):
    """One tool as a tracker sees it."""

    id: Annotated[Name, doc("the tool's id in the case file, or the reference marker's")]
    visible: Annotated[bool, doc("whether the tracker sees it now")]
    T_tracker_tool: Annotated[Pose | None, doc("rigid and right-handed, within 20 m; null while it is hidden")] = None
    error_mm: Annotated[NotNegative | None, doc("the tracker's own error of its place: rms in space, mm")] = None

    def fault(self) -> str:
        """Why its pose cannot be used, in words; empty where it can."""
        pose = self.T_tracker_tool
        if pose is None:
            return ""
        if not is_rigid([pose[i : i + 4] for i in range(0, 16, 4)]):
            return "not a rigid, right-handed motion"
        if max(map(abs, pose[3:12:4])) > _MOST_TRACKED_MM:
            return f"more than {_MOST_TRACKED_MM:g} mm away; no tracker sees so far"
        return ""


class ToolsMessage(Received, kw_only=True, frozen=True):
    """What a tracker saw at one moment."""

    source: Source
    seq: Annotated[Count, doc("number of the sample")]
    t_acq: Annotated[Time, doc("when the tracker measured")]
    tools: Annotated[list[ToolPose], Meta(max_length=MOST_TOOLS, description="what the tracker knows")]


class ViewHeader(Message, kw_only=True):
    """The enhanced picture of a frame, for a display."""

    source: Source
    seq: FrameNumber
    t_acq: Exposed
    rows: Annotated[int, Meta(ge=1, le=MAX_SIDE, description="height of the picture")]
    cols: Annotated[int, Meta(ge=1, le=MAX_SIDE, description="width of the picture")]
    dtype: Annotated[Literal["u1"], doc("type of a pixel")]
    bits: Annotated[Literal[8], doc("bits stored")]
    polarity: Annotated[Literal["counts"], doc("bright is more X-ray")]


class Dropped(msgspec.Struct):
    """Frames without an overlay since the overlay before, by reason."""

    network: Annotated[Count, doc("lost before they arrived: gaps in `seq`")]
    overload: Annotated[Count, doc("arrived, and skipped for a newer one")]
    invalid: Annotated[Count, doc("refused")]


class Registration(msgspec.Struct, kw_only=True):
    """The patient in the camera's frame, with its uncertainty."""

    T_camera_ct: Annotated[Pose, doc("CT to camera, mm")]
    score: Annotated[Fraction, doc("agreement of image and CT")]
    sigma: Annotated[
        list[Number],
        Meta(min_length=6, max_length=6, description="rx ry rz degrees, x y z mm, camera axes, 1 sigma"),
    ]
    tre_mm: Annotated[Number, doc("95 % bound at the plan's target, in space, mm")]
    tre_image_mm: Annotated[Number, doc("the same, across the ray, mm")]
    age: Annotated[Count, doc("frames since it was measured")]
    age_ms: Annotated[NotNegative | UnsetType | None, doc("time since then, ms")] = UNSET
    accepted: Annotated[bool | UnsetType | None, doc("a person has accepted it")] = UNSET
    turn_deg: Annotated[
        NotNegative | UnsetType | None, doc("95 % bound of the angle by which it may be turned, degrees")
    ] = UNSET
    bone: Annotated[
        str | UnsetType | None,
        doc("the bone that pose and bounds are of, where bones have moved since the CT; else empty: all move as one"),
    ] = UNSET


class ObjectRegistration(Registration):
    """A rigid object of the case that has a pose of its own: its name, and the keys of `registration`."""

    name: Annotated[Name, doc("the object's, as in the case file")]


class Instrument(msgspec.Struct, kw_only=True):
    """One instrument, in the image and in the patient."""

    id: Annotated[Name, doc("the tool's, or `image-<n>` for one that only pictures show")]
    kind: Annotated[Name, doc("e.g. `k-wire`")]
    tip_px: Annotated[Pixel | None, doc("tip in the image, px")]
    tail_px: Annotated[Pixel | None, doc("where it ends or leaves the view, px")]
    tip_ct: Annotated[Point | None, doc("tip in the patient, mm")]
    axis_ct: Annotated[Point | None, doc("direction from tail to tip, unit length")]
    sigma_mm: Annotated[Number, doc("of the tip, 1 sigma, mm")]
    origin: Annotated[Literal["image", "tracker", "fused"], doc("what it was measured with")]
    age: Annotated[Count, doc("frames since a picture or the tracker showed it")]
    age_ms: Annotated[NotNegative | UnsetType | None, doc("time since then, ms")] = UNSET
    method: Annotated[
        Literal["two_views", "width"] | UnsetType | None, doc("how one that only pictures show was placed")
    ] = UNSET
    shaft_px: Annotated[
        list[Pixel] | UnsetType | None, doc("from tip to tail where it is bent, px; null where it is straight")
    ] = UNSET


class Distance(msgspec.Struct, kw_only=True):
    """How far an instrument, tip or shaft, is from a structure's surface, and from touching it on its way."""

    instrument: Annotated[Name, doc("its `id` among `instruments`")]
    structure: Annotated[Name, doc("a structure or a no-go region of the case")]
    distance_mm: Annotated[Number, doc("to its surface, mm; negative inside")]
    lower_mm: Annotated[Number, doc("95 % lower bound, mm")]
    nearest_ct: Annotated[Point, doc("nearest point of the surface, mm")]
    level: Annotated[Literal["clear", "caution", "danger"], doc("against the structure's thresholds, with hysteresis")]
    ahead_mm: Annotated[
        Number | UnsetType | None, doc("how far it may go on in its direction before it can touch, mm")
    ] = UNSET
    contact_s: Annotated[Number | UnsetType | None, doc("time to contact at the speed of the last frames, s")] = UNSET


class PlanProgress(msgspec.Struct, kw_only=True):
    """A planned trajectory in the image, and the active instrument against it."""

    trajectory: Annotated[Name, doc("its name in the case's plan")]
    entry_px: Annotated[Pixel | None, doc("entry in the image, px")]
    target_px: Annotated[Pixel | None, doc("target in the image, px")]
    angle_deg: Annotated[Number | None, doc("between instrument and trajectory, degrees")]
    lateral_mm: Annotated[Number | None, doc("tip to the trajectory's line, mm")]
    depth_left_mm: Annotated[Number | None, doc("tip to target along the trajectory, mm")]
    beside_mm: Annotated[
        Pixel | UnsetType | None,
        doc(
            "[right, up] of the tip, mm, seen along the trajectory with the patient's head up, or the front where it "
            "runs along the spine"
        ),
    ] = UNSET


class Outline(msgspec.Struct, kw_only=True):
    """A structure's silhouette."""

    structure: Annotated[Name, doc("its name in the case")]
    color: Annotated[str, doc("`#rrggbb`")]
    paths: Annotated[list[list[Pixel]], doc("closed lines, px")]


class Look(msgspec.Struct, kw_only=True):
    """Which part of the frame the detection of instruments has looked at."""

    kind: Annotated[
        Literal["whole", "part", "known", "none"],
        doc("all of it; some areas and about the known instruments; about these alone; nothing"),
    ]
    areas_px: Annotated[
        list[Annotated[list[Number], Meta(min_length=4, max_length=4)]],
        doc("of a part: [left, top, right, bottom] of each area, px"),
    ]
    reason: Annotated[
        Literal["", "time", "rest", "searching", "no_field"],
        doc(
            "why it was not more than the known instruments: too little time; a rest after it made a frame late; the "
            "patient is searched for; no field of view. Else empty"
        ),
    ]


class Overlay(Message, kw_only=True):
    """One per frame taken up; `t_sent` and `missed` are set when it leaves."""

    source: Source
    seq: FrameNumber
    t_acq: Exposed
    t_recv: Annotated[Time, doc("when the frame arrived")]
    t_sent: Annotated[Time, doc("when the overlay left")]
    deadline_ms: Annotated[Number, doc("from exposure to overlay, as the launch file says, ms")]
    missed: Annotated[bool, doc("whether it left later than that")]
    dropped: Annotated[Dropped, doc("frames lost or skipped since the overlay before, by reason")]
    stages: Annotated[dict[str, Number], doc("time that each stage took, by its name, ms")]
    status: Annotated[
        Literal["searching", "tracking", "degraded", "lost", "no_model"], doc("state of the registration")
    ]
    registration: Annotated[Registration | None, doc("null without a pose")]
    instruments: Annotated[list[Instrument], doc("those in view, or tracked")]
    distances: Annotated[list[Distance], doc("of each placed instrument to each watched structure")]
    plan: Annotated[list[PlanProgress], doc("the trajectories that are shown")]
    outlines: Annotated[list[Outline], doc("of the structures, in the image")]
    models: Annotated[dict[str, str], doc("SHA-256, by name, of the networks that had a part in it")]
    mode: Annotated[Mode, doc("in effect")]
    objects: Annotated[
        list[ObjectRegistration] | UnsetType | None,
        doc("where the case names rigid objects: those that have a pose of their own at the moment"),
    ] = UNSET
    replayed: Annotated[bool | UnsetType, doc("its frame is sent again from a recording")] = UNSET
    look: Annotated[Look | UnsetType | None, doc("where the launch file names `detection`: what it has looked at")] = (
        UNSET
    )
    breathing: Annotated[
        Breathing | UnsetType | None,
        doc("how the patient breathes, and slips, once that can be told: after two breaths"),
    ] = UNSET


class Alert(Message, kw_only=True):
    """One step in the life of an alert."""

    source: Source
    instance: Annotated[str | UnsetType | None, doc("which start of the pipeline it is of")] = UNSET
    id: Annotated[Name, doc("stable through its life")]
    seq: Annotated[Count, doc("number of the frame that it goes with; 0 where there is none")]
    t_acq: Annotated[TimeOrZero, doc("`t_acq` of that frame; 0 where there is none")]
    t_raised: Annotated[Time, doc("when it was raised")]
    state: Annotated[Literal["raised", "changed", "cleared", "acknowledged"], doc("step in its life")]
    priority: Annotated[Literal["high", "medium", "low"], doc("IEC 60601-1-8")]
    kind: Annotated[
        Literal[
            "proximity",
            "registration_lost",
            "instrument_lost",
            "stale_frames",
            "latency",
            "engine",
            "tracker_drift",
            "storage",
            "security",
        ],
        doc("what it is about"),
    ]
    instrument: Annotated[str | None, doc("which instrument, where one is meant")]
    structure: Annotated[str | None, doc("which structure, where one is meant")]
    distance_mm: Annotated[Number | None, doc("as in `distances`, mm")]
    lower_mm: Annotated[Number | None, doc("as in `distances`, mm")]
    threshold_mm: Annotated[Number | None, doc("the threshold that was crossed, mm")]
    text: Annotated[str, doc("for people")]


class Latency(msgspec.Struct):
    """Exposure to overlay sent, over the last seconds."""

    p50: Annotated[Number, doc("median, ms")]
    p99: Annotated[Number, doc("99th percentile, ms")]
    max: Annotated[Number, doc("longest, ms")]


class FrameCounts(msgspec.Struct):
    """Frames since the start."""

    received: Annotated[Count, doc("that arrived")]
    processed: Annotated[Count, doc("that got an overlay")]
    network: Annotated[Count, doc("lost before they arrived")]
    overload: Annotated[Count, doc("skipped for a newer one")]
    invalid: Annotated[Count, doc("refused")]
    missed: Annotated[Count, doc("whose overlay was late")]


class SessionState(msgspec.Struct, kw_only=True):
    """What persons have decided about the loaded case."""

    confirmed: Annotated[bool, doc("a person has confirmed the patient")]
    accepted: Annotated[bool, doc("a person has accepted this registration")]
    accepted_t: Annotated[Time | UnsetType | None, doc("when; a registration that is found again keeps it")] = UNSET
    plan: Annotated[list[str], doc("names of the trajectories that are shown")]
    restored: Annotated[bool, doc("it goes on with the session before a restart")]


class Health(Message, kw_only=True):
    """Once a second, and on a change of state."""

    source: Source
    t: Annotated[Time, doc("now")]
    state: Annotated[Literal["starting", "ready", "running", "degraded", "failed"], doc("of the pipeline")]
    reason: Annotated[str | UnsetType | None, doc("in words, why `state` is not better")] = UNSET
    instance: Annotated[str | UnsetType | None, doc("another at each start")] = UNSET
    alerts: Annotated[
        list[Alert] | UnsetType | None,
        doc("all that are open, in full: a display drops what is not among them, and what another `instance` said"),
    ] = UNSET
    fps_in: Annotated[Number, doc("frames received, per second")]
    fps_out: Annotated[Number, doc("overlays sent, per second")]
    latency_ms: Annotated[Latency, doc("exposure to overlay, over the last seconds, ms")]
    frames: Annotated[FrameCounts, doc("counted since the start")]
    invalid_by_field: Annotated[dict[str, Count] | UnsetType, doc("refused frames, by the field at fault")] = UNSET
    tools_invalid: Annotated[Count | UnsetType, doc("refused messages of trackers")] = UNSET
    tools_skipped: Annotated[Count | UnsetType, doc("messages of trackers left out of a flood")] = UNSET
    tools_rejected: Annotated[dict[str, Count] | UnsetType, doc("poses not believed, by reason")] = UNSET
    keyframes: Annotated[
        dict[str, Count] | UnsetType,
        doc("keyframes of the registration rendered since the start, `in_frames` and `beside` the frame path"),
    ] = UNSET
    looks: Annotated[dict[str, Count] | UnsetType, doc("frames of this case, by `look.kind` of their overlays")] = UNSET
    witness: Annotated[dict[str, Count] | UnsetType, doc("what pictures said of pose and tools, by reason")] = UNSET
    breaths: Annotated[dict[str, Count] | UnsetType, doc("frames by `breathing.state`, and `slips`")] = UNSET
    resting: Annotated[dict[str, str] | UnsetType, doc("stages that rest, and why, in words")] = UNSET
    clock_offset_ms: Annotated[Number, doc("this computer's clock minus the grabber's, ms")]
    engine: Annotated[dict[str, str], doc("what each stage runs on, by its name")]
    case: Annotated[str, doc("id of the loaded case; empty while none is loaded")]
    case_name: Annotated[str | UnsetType, doc("its name among the launch file's `cases`")] = UNSET
    loading: Annotated[str | UnsetType, doc("the one that is being loaded, or empty")] = UNSET
    recording: Annotated[str | UnsetType, doc("the file that is written, or empty")] = UNSET
    mode: Annotated[Mode, doc("in effect")]
    session: Annotated[SessionState | UnsetType | None, doc("what persons have decided about the loaded case")] = UNSET
    unauthenticated: Annotated[bool | UnsetType | None, doc("requests are open to other computers")] = UNSET
    version: Annotated[str, doc("of fluoronav")]
    error: Annotated[str | UnsetType, doc("the last error, while it holds; or empty")] = UNSET
