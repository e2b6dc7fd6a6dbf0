"""Parts of a recording: its frames, the overlay of one frame, its alerts, its cases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
from numpy.typing import NDArray

from fluoronav.recording.error import RecordingError
from fluoronav.recording.file import read_recording
from fluoronav.wire import InvalidMessage, decode_frame
from fluoronav.wire.messages import FrameHeader


def frames_of(
    path: Path, first: int | None = None, last: int | None = None
) -> Iterator[tuple[FrameHeader, NDArray[np.uint8 | np.uint16]]]:
    """The valid frames of a recording, in the order in which they came.

    Parameters
    ----------
    path : Path
    first, last : int, optional
        Numbers (`seq`) of the first and the last frame; all by default.

    Yields
    ------
    header : FrameHeader
    counts : ndarray, shape (rows, cols)

    Raises
    ------
    RecordingError
    """
    for parts in _of_kind(path, b"frame"):
        try:
            header, counts = decode_frame(parts)
        except InvalidMessage:
            continue  # the pipeline did not take it either, and counted it
        if (first is None or header.seq >= first) and (last is None or header.seq <= last):
            yield header, counts


def frame_of(path: Path, seq: int) -> tuple[FrameHeader, NDArray[np.uint8 | np.uint16]]:
    """One frame by its number; raises :class:`RecordingError` where there is none."""
    found = next(frames_of(path, seq, seq), None)
    if found is None:
        raise RecordingError(f"{path}: has no frame {seq}")
    return found


def overlay_of(path: Path, seq: int) -> dict[str, Any]:
    """The overlay of a frame, as it was sent; raises :class:`RecordingError` where there is none."""
    for content in _maps(path, b"overlay"):
        if content.get("seq") == seq:
            return content
    raise RecordingError(f"{path}: has no overlay of frame {seq}; it was lost, skipped or not recorded")


def accepted_overlay(path: Path, seq: int | None = None) -> dict[str, Any]:
    """The last overlay (or that of a frame) with a registration that a person has accepted.

    Raises
    ------
    RecordingError
        There is none.
    """
    found = None
    for content in _maps(path, b"overlay"):
        registration = content.get("registration")
        if registration and registration.get("accepted") and (seq is None or content.get("seq") == seq):
            found = content
    if found is None:
        where = "no frame has" if seq is None else f"frame {seq} has not"
        raise RecordingError(f"{path}: {where} a registration that a person has accepted")
    return found


def alerts_of(path: Path) -> list[dict[str, Any]]:
    """All alert messages, in their order."""
    return list(_maps(path, b"alert"))


def cases_of(path: Path) -> set[str]:
    """Ids of the cases that were loaded meanwhile."""
    return {case for health in _maps(path, b"health") if (case := str(health.get("case") or ""))}


def _maps(path: Path, kind: bytes) -> Iterator[dict[str, Any]]:
    for parts in _of_kind(path, kind):
        try:
            content = msgpack.unpackb(parts[1])
        except (ValueError, IndexError, msgpack.UnpackException):
            continue  # a message that was broken when it came
        if isinstance(content, dict):
            yield content


def _of_kind(path: Path, kind: bytes) -> Iterator[list[bytes]]:
    _, messages = read_recording(path)
    for _, parts in messages:
        if parts and parts[0].partition(b"/")[0] == kind:
            yield parts
