"""A plan as OpenIGTLink messages (RAS, mm): surfaces, trajectories, and what the plan is.

POLYDATA for each body; TRANSFORM for each trajectory, whose z axis runs from entry to target and whose origin is the
target; POINT with the entries and targets; STRING with the plan as JSON.
"""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from fluoronav.openigtlink.clients import Outgoing
from fluoronav.openigtlink.content import pack_polydata, pack_string, pack_transform
from fluoronav.openigtlink.names import DeviceNames, in_ascii
from fluoronav.openigtlink.patient_frame import RAS_FROM_LPS, surface_in_ras
from fluoronav.planning.meshes.parts import Part, frame_to
from fluoronav.planning.plan.planned import Planned, ends
from fluoronav.planning.plan.schema import Path as PlannedPath
from fluoronav.planning.plan.schema import Screw

_POINT = struct.Struct("> 64s 32s 4B 3f f 20s")  # name, group, RGBA, position, diameter, owner
_WAIT_S = 10.0  # for the receiver; chosen: it reads surfaces of some megabytes
_VERSION = 2  # of the header; chosen: full names travel as metadata, and Slicer reads it


def plan_messages(planned: Planned, parts: Sequence[Part]) -> list[Outgoing]:
    """All messages of a plan, in the order in which they are sent."""
    items = [i for i in planned.plan.items if isinstance(i, Screw | PlannedPath)]
    names = DeviceNames(("Plan", "PlanPoints"), (p.name for p in parts), (i.id for i in items), "ToPatient")
    out = [Outgoing("STRING", "Plan", "Plan", pack_string(json.dumps(_summary(planned, items))))]
    for p in parts:
        content = pack_polydata(*surface_in_ras(p.mesh.points, p.mesh.triangles))
        out.append(Outgoing("POLYDATA", names.of(p.name), p.name, content))
    points = []
    for item in items:
        entry, target = (np.asarray(e, float) for e in ends(item))
        T = np.eye(4)
        T[:3, :3], T[:3, 3] = frame_to((target - entry) / np.linalg.norm(target - entry)), target
        # Both sides change, so that the frame stays right-handed; z still runs to the target.
        T_ras = RAS_FROM_LPS @ T
        out.append(Outgoing("TRANSFORM", names.of_tool(item.id), item.id, pack_transform(T_ras)))
        points += [(f"{item.id} entry", entry, item.diameter_mm), (f"{item.id} target", target, item.diameter_mm)]
    if points:
        out.append(Outgoing("POINT", "PlanPoints", "PlanPoints", b"".join(_point(*p) for p in points)))
    return out


def packed(messages: Sequence[Outgoing]) -> bytes:
    """The bytes of messages, one after another."""
    return b"".join(m.packed(_VERSION) for m in messages)


def send(messages: Sequence[Outgoing], host: str, port: int) -> int:
    """Sends messages to an OpenIGTLink server, such as 3D Slicer's; returns the bytes sent.

    Raises
    ------
    OSError
        Nobody listens there, or it does not read.
    """
    data = packed(messages)
    with socket.create_connection((host, port), timeout=_WAIT_S) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        # The receiver reads until our end; what it sends meanwhile is not awaited longer than this.
        ends_at = time.monotonic() + _WAIT_S
        connection.settimeout(1.0)
        try:
            while time.monotonic() < ends_at and connection.recv(65536):
                pass
        except TimeoutError:
            pass
    return len(data)


def _point(name: str, point_ct: np.ndarray, diameter_mm: float) -> bytes:
    x, y, z = (RAS_FROM_LPS[:3, :3] @ point_ct).tolist()
    return _POINT.pack(in_ascii(name)[:63].encode(), b"Plan", 244, 208, 63, 255, x, y, z, diameter_mm, b"")


def _summary(planned: Planned, items: Sequence[Any]) -> dict[str, Any]:
    plan = planned.plan
    return {
        "case": plan.case, "revision": plan.revision, "state": plan.state, "hash": planned.digest, "frame": "RAS",
        "trajectories": [
            {"id": i.id, "diameter_mm": i.diameter_mm, **({"grade": i.grade} if isinstance(i, Screw) else {})}
            for i in items
        ],
    }  # fmt: skip
