"""Which tool of the case a device of the tracker is; two devices never become one tool."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fluoronav.openigtlink.protocol import NAME_BYTES

Float = NDArray[np.float64]

# Names as PLUS gives them: `StylusToTracker` is the stylus.
_TO_TRACKER = re.compile(r"^(.+?)To(Tracker|Physical|World)$")
_LONGEST_ID = 64
# A device that was not heard of for so long holds its tool's id no longer.
_HELD_S = 10.0
# A pose of the same device is never farther from the one before.
_JITTER_MM, _FASTEST_MM_S = 20.0, 5000.0
# So many impossible moves within a time are two devices that share a name; believed again after as long without.
_HOPS, _HOPS_S, _HOPPING_S = 3, 1.0, 3.0
# A name that may have been cut is watched for so long before it is believed.
_WATCHED_S = 0.5
_MOST_DEVICES = 256


def tool_ids(pairs: Sequence[str]) -> dict[str, str]:
    """Tool ids by device from ``DEVICE=ID`` as they are written on the command line.

    Raises
    ------
    ValueError
        A pair is no pair; two devices would be one tool; two names are the same where OpenIGTLink cuts them.
    """
    ids: dict[str, str] = {}
    for pair in pairs:
        device, equals, tool = (unicodedata.normalize("NFC", part.strip()) for part in pair.partition("="))
        if not (device and equals and tool) or len(tool) > _LONGEST_ID:
            raise ValueError(f"--tool {pair}: DEVICE=ID was expected, for example StylusToTracker=kwire")
        if device in ids:
            raise ValueError(f"--tool {pair}: {device} is already {ids[device]}; a device is one tool")
        if tool in ids.values():
            other = next(d for d, t in ids.items() if t == tool)
            raise ValueError(f"--tool {pair}: {other} is {tool}, too; two devices cannot be one tool")
        ids[device] = tool
    short: dict[str, str] = {}
    for device in ids:
        other = short.setdefault(_cut(device), device)
        if other != device:
            raise ValueError(
                f"--tool {device} and {other} are the same in OpenIGTLink's {NAME_BYTES} letters, {_cut(device)!r}: "
                "rename one of them in the gateway's configuration"
            )
    return ids


def _cut(device: str) -> str:
    return device.encode()[:NAME_BYTES].decode(errors="ignore")


@dataclass(slots=True)
class _Device:
    tool: str
    first_s: float
    heard_s: float
    T: Float | None = None
    at_s: float = 0.0
    hops: tuple[float, ...] = ()
    hopping_until_s: float = -np.inf


class Devices:
    """The tool of each device, and whether a pose under its name can be believed.

    Parameters
    ----------
    ids : mapping
        Tool ids by device (:func:`tool_ids`); a device that is not named keeps its own name, without ``ToTracker``.
    """

    def __init__(self, ids: Mapping[str, str]) -> None:
        self._ids = dict(ids)
        self._by_cut = {_cut(d): t for d, t in ids.items() if len(d.encode()) > NAME_BYTES}
        self._known: dict[str, _Device] = {}

    def tool(self, device: str, cut: bool, now_s: float) -> str:
        """The id of a device's tool."""
        known = self._known.get(device)
        if known is None or now_s - known.heard_s > _HELD_S:
            if len(self._known) >= _MOST_DEVICES:
                self._known.clear()
            known = self._known[device] = _Device(self._name(device, cut), now_s, now_s)
        known.heard_s = now_s
        return known.tool

    def shared(self, device: str, now_s: float) -> list[str]:
        """Other devices that are the same tool; none for one that was named at the start, whose it is."""
        tool = self._known[device].tool
        others = [d for d, k in self._known.items() if d != device and k.tool == tool and now_s - k.heard_s <= _HELD_S]
        return [] if self.named(device) and not any(map(self.named, others)) else others

    def hops(self, device: str, cut: bool, T: Float, t_s: float, now_s: float) -> bool:
        """Whether poses under this name are of several devices, or may be for all that is known yet.

        Parameters
        ----------
        device : str
        cut : bool
            The name may be the beginning of a longer one.
        T : ndarray, shape (4, 4)
            ``T_tracker_tool``.
        t_s, now_s : float
            When it was measured and when it came, s; each by one clock.
        """
        known = self._known[device]
        if known.T is not None:
            far = float(np.linalg.norm(T[:3, 3] - known.T[:3, 3]))
            if far > _JITTER_MM + _FASTEST_MM_S * abs(t_s - known.at_s):
                known.hops = (*(h for h in known.hops if now_s - h < _HOPS_S), now_s)
                if len(known.hops) >= (1 if cut else _HOPS):
                    known.hopping_until_s = now_s + _HOPPING_S
                    known.hops = known.hops[-_HOPS:]
        known.T, known.at_s = T, t_s
        return now_s < known.hopping_until_s or (cut and now_s - known.first_s < _WATCHED_S)

    def of_another(self, device: str, now_s: float) -> bool:
        """Whether the tool belongs to another device, which was named at the start."""
        return not self.named(device) and any(map(self.named, self.shared(device, now_s)))

    def named(self, device: str) -> bool:
        """Whether the device was given a tool at the start."""
        return device in self._ids or device in self._by_cut

    def _name(self, device: str, cut: bool) -> str:
        tool = self._ids.get(device) or (self._by_cut.get(device) if cut else None)
        if tool is None:
            found = _TO_TRACKER.match(device)
            tool = (found.group(1) if found else device)[:_LONGEST_ID] or "unnamed"
        return tool
