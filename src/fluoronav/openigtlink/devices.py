"""Assigns the tracker's devices to the case's tools; two devices are never one tool."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fluoronav.openigtlink.protocol import NAME_BYTES
from fluoronav.wire.values import NAME_CHARS

Float = NDArray[np.float64]

# Names as PLUS gives them: `StylusToTracker` is the stylus.
_TO_TRACKER = re.compile(r"^(.+?)To(Tracker|Physical|World)$")


@dataclass(frozen=True, slots=True)
class DeviceLimits:
    """When two devices share one name; all are chosen."""

    max_id_chars: int = NAME_CHARS
    held_s: float = 10.0  # a device that was silent for so long no longer holds its tool
    jitter_mm: float = 20.0  # a device moves between two poses by no more than this,
    fastest_mm_s: float = 5000.0  # and this times the time between them: a hand's fastest movement
    hops: int = 3  # so many impossible movements
    hops_within_s: float = 1.0  # in so long are two devices under one name
    hopping_s: float = 3.0  # without one for so long the name is used again
    watched_s: float = 0.5  # a name that may be cut is used only after so long
    max_devices: int = 256


LIMITS = DeviceLimits()


def tool_ids(pairs: Sequence[str]) -> dict[str, str]:
    """Tool ids by device from the command line's ``DEVICE=ID``.

    Raises
    ------
    ValueError
        A pair is malformed, two devices have one tool, or two names have the same first 20 bytes.
    """
    ids: dict[str, str] = {}
    for pair in pairs:
        device, equals, tool = (unicodedata.normalize("NFC", part.strip()) for part in pair.partition("="))
        if not (device and equals and tool) or len(tool) > LIMITS.max_id_chars:
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
    """The tool of each device, and whether a pose under its name can be used.

    Parameters
    ----------
    ids : mapping
        Tool ids by device (:func:`tool_ids`); any other device keeps its own name, without ``ToTracker``.
    """

    def __init__(self, ids: Mapping[str, str]) -> None:
        self._ids = dict(ids)
        self._by_cut = {_cut(d): t for d, t in ids.items() if len(d.encode()) > NAME_BYTES}
        self._known: dict[str, _Device] = {}

    def tool(self, device: str, cut: bool, now_s: float) -> str:
        """The id of a device's tool."""
        known = self._known.get(device)
        if known is None or now_s - known.heard_s > LIMITS.held_s:
            if len(self._known) >= LIMITS.max_devices:
                self._known.clear()
            known = self._known[device] = _Device(self._name(device, cut), now_s, now_s)
        known.heard_s = now_s
        return known.tool

    def shared(self, device: str, now_s: float) -> list[str]:
        """Other devices with the same tool; none for a device that was named at the start."""
        tool = self._known[device].tool
        others = [
            other
            for other, known in self._known.items()
            if other != device and known.tool == tool and now_s - known.heard_s <= LIMITS.held_s
        ]
        return [] if self.named(device) and not any(map(self.named, others)) else others

    def hops(self, device: str, cut: bool, T: Float, t_s: float, now_s: float) -> bool:
        """Whether poses under this name come from several devices, or too little is known to exclude it.

        Parameters
        ----------
        device : str
        cut : bool
            The name may be the beginning of a longer one.
        T : ndarray, shape (4, 4)
            ``T_tracker_tool``.
        t_s, now_s : float
            Time of measurement and of arrival, s, each by one clock.
        """
        known = self._known[device]
        if known.T is not None:
            far = float(np.linalg.norm(T[:3, 3] - known.T[:3, 3]))
            if far > LIMITS.jitter_mm + LIMITS.fastest_mm_s * abs(t_s - known.at_s):
                known.hops = (*(h for h in known.hops if now_s - h < LIMITS.hops_within_s), now_s)
                if len(known.hops) >= (1 if cut else LIMITS.hops):
                    known.hopping_until_s = now_s + LIMITS.hopping_s
                    known.hops = known.hops[-LIMITS.hops :]
        known.T, known.at_s = T, t_s
        return now_s < known.hopping_until_s or (cut and now_s - known.first_s < LIMITS.watched_s)

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
            tool = (found.group(1) if found else device)[: LIMITS.max_id_chars] or "unnamed"
        return tool
