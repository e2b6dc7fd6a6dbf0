"""The tools of one OpenIGTLink message: pose and visibility of each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fluoronav.geometry import is_rigid
from fluoronav.openigtlink.content import unpack_tracking_data, unpack_transform
from fluoronav.openigtlink.protocol import Message

Float = NDArray[np.float64]

# Chosen: no tracker measures so far; a pose beyond is an error, or in another unit.
FARTHEST_MM = 10_000.0
# Values of PLUS for a visible tool (igsioCommon::ConvertToolStatusToString; older versions send TOOL_OK).
_VISIBLE = frozenset({"OK", "TOOL_OK"})
_VALID = frozenset({"TRUE", "1", "YES", "OK"})
# Keys of the metadata: alone for the whole message, or after a tool's name.
_STATUS_ENDINGS = ("status", "transformstatus", "toolstatus", "trackingstatus")
_VALID_ENDINGS = ("valid", "transformvalid", "toolvalid", "isvalid")
_INDEX, _STATUS = "Index", "Status"


@dataclass(frozen=True, slots=True)
class Sighting:
    """One tool in one message.

    Attributes
    ----------
    device : str
        The whole name, where the message has it.
    cut : bool
        The name may be the beginning of a longer one.
    T_tracker_tool : ndarray, shape (4, 4), or None
        None where it is refused.
    refused : str
        Reason of a refusal: ``hidden`` (the tracker does not see it), ``not_rigid``, ``too_far``; else empty.
    status : str
        The tracker's status of a hidden tool.
    """

    device: str
    cut: bool
    T_tracker_tool: Float | None
    refused: str = ""
    status: str = ""


def sightings(message: Message) -> list[Sighting]:
    """The tools of a TRANSFORM or TDATA message; raises :class:`~.protocol.ProtocolError`."""
    if message.header.kind == "TRANSFORM":
        T = unpack_transform(message.content)
        return [
            _judged(message.name, message.cut, T, _hidden_status(message.metadata, (message.name, message.header.name)))
        ]
    found = []
    for k, tool in enumerate(unpack_tracking_data(message.content)):
        long = _long_name(message.metadata, k, tool.name, tool.name_full)
        status = _hidden_status(message.metadata, (long or tool.name, tool.name))
        found.append(_judged(long or tool.name, tool.name_full and not long, tool.T, status))
    return found


def _judged(device: str, cut: bool, T: Float, status: str) -> Sighting:
    if status:
        return Sighting(device, cut, None, "hidden", status)
    if not is_rigid(T):
        return Sighting(device, cut, None, "not_rigid")
    if float(np.abs(T[:3, 3]).max()) > FARTHEST_MM:
        return Sighting(device, cut, None, "too_far")
    return Sighting(device, cut, T)


def _hidden_status(metadata: Mapping[str, str], names: Iterable[str]) -> str:
    """The first status in the metadata that reports a tool as hidden; empty where there is none."""
    if not metadata:
        return ""
    before = {"", *(_plain(n) for n in names), *(_plain(n.rpartition("To")[0]) for n in names)}
    statuses = {b + e for b in before for e in _STATUS_ENDINGS}
    valids = {b + e for b in before for e in _VALID_ENDINGS}
    for key, value in metadata.items():
        key, value = _plain(key), value.strip().upper()
        if (key in statuses and value not in _VISIBLE) or (key in valids and value not in _VALID):
            return value or "no status"
    return ""


def _long_name(metadata: Mapping[str, str], k: int, name: str, full: bool) -> str:
    """The whole name of the k-th tool whose name fills its field; empty where the metadata do not have it."""
    if not full:
        return ""
    numbered = [key[: -len(_INDEX)] for key, v in metadata.items() if key.endswith(_INDEX) and v.strip() == str(k)]
    others = [key[: -len(_STATUS)] for key in metadata if key.endswith(_STATUS)]
    for candidates in (numbered, others):
        fitting = [c for c in candidates if c.startswith(name)]
        if len(fitting) == 1:
            return fitting[0]
    return ""


def _plain(key: str) -> str:
    return "".join(c for c in key.casefold() if c.isalnum())
