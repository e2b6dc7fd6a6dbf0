"""Every frame is accounted for: taken up, or dropped for a reason that is counted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from fluoronav.wire import FrameHeader

# A grabber that starts again counts from anywhere: so many frames in a row, each newer than the last, are believed.
_RESTART_AFTER_FRAMES = 10
_RESTART_AFTER_SILENCE_NS = 500_000_000
# Numbers of invalid messages that are remembered, so that their gap is not counted twice.
_REMEMBERED = 1024


@dataclass
class FrameTotals:
    """Since the start."""

    received: int = 0
    processed: int = 0
    network: int = 0
    overload: int = 0
    invalid: int = 0
    missed: int = 0
    invalid_by_field: Counter[str] = field(default_factory=Counter)


class FrameAccount:
    """Counts one source's frames.

    Parameters
    ----------
    rows, cols : int
        The camera's image size: a frame of another size cannot be registered with it.
    max_future_ns : int
        How far a frame's time may lie ahead of ours.
    """

    def __init__(self, rows: int, cols: int, max_future_ns: int) -> None:
        self._size = rows, cols
        self._max_future_ns = max_future_ns
        self._last_seq: int | None = None
        self._last_t_acq = 0
        self._last_t_recv = 0
        self._spoiled: set[int] = set()
        self._run: tuple[int, int, int] = (0, -1, 0)  # rejected frames in a row, the last one's seq and time
        self._pending = {"network": 0, "overload": 0, "invalid": 0}
        self.totals = FrameTotals()

    def reject(self, name: str, seq: int | None = None) -> None:
        """Counts a message that breaks the protocol; ``name`` is the field that does."""
        self.totals.received += 1
        self._invalid(name, seq)

    def admit(self, header: FrameHeader, t_recv: int) -> str | None:
        """Decides about a valid frame.

        Returns
        -------
        str or None
            None when it may be taken up; otherwise why not, beginning with the field (it is then counted as invalid).
        """
        self.totals.received += 1
        if (header.rows, header.cols) != self._size:
            name = "rows" if header.rows != self._size[0] else "cols"
            self._invalid(name, header.seq)
            size = f"{self._size[0]} x {self._size[1]}"
            return f"{name}: frame is {header.rows} x {header.cols}, the camera file says {size}"
        if header.t_acq > t_recv + self._max_future_ns:
            self._invalid("t_acq", header.seq)
            return f"t_acq: lies {(header.t_acq - t_recv) / 1e6:.0f} ms in the future; are the clocks synchronised?"
        if self._last_seq is not None and header.seq <= self._last_seq:
            if not self._restarted(header, t_recv):
                self._invalid("seq", None)
                return f"seq: {header.seq} is not after {self._last_seq}"
            self._last_seq = None
            self._spoiled.clear()
        if self._last_seq is not None:
            gap = header.seq - self._last_seq - 1
            lost = gap - sum(1 for s in self._spoiled if self._last_seq < s < header.seq)
            self._pending["network"] += lost
            self.totals.network += lost
        self._spoiled = {s for s in self._spoiled if s > header.seq}
        self._last_seq, self._last_t_acq, self._last_t_recv = header.seq, header.t_acq, t_recv
        self._run = (0, -1, 0)
        return None

    def skip(self) -> None:
        """Counts an admitted frame that is passed over for a newer one."""
        self._pending["overload"] += 1
        self.totals.overload += 1

    def take_up(self) -> dict[str, int]:
        """What was dropped since the overlay before; an admitted frame is now being processed."""
        dropped, self._pending = self._pending, {"network": 0, "overload": 0, "invalid": 0}
        return dropped

    def finished(self, missed: bool) -> None:
        """An overlay has left."""
        self.totals.processed += 1
        self.totals.missed += missed

    def _invalid(self, name: str, seq: int | None) -> None:
        self._pending["invalid"] += 1
        self.totals.invalid += 1
        self.totals.invalid_by_field[name.split(".")[0]] += 1
        if seq is not None and len(self._spoiled) < _REMEMBERED and (self._last_seq is None or seq > self._last_seq):
            self._spoiled.add(seq)

    def _restarted(self, header: FrameHeader, t_recv: int) -> bool:
        """Whether numbers that went back mean that the grabber was started anew."""
        if header.t_acq <= self._last_t_acq:
            return False
        if t_recv - self._last_t_recv > _RESTART_AFTER_SILENCE_NS:
            return True
        count, seq, t_acq = self._run
        follows = header.seq == seq + 1 and header.t_acq > t_acq
        self._run = (count + 1 if follows else 1, header.seq, header.t_acq)
        return self._run[0] >= _RESTART_AFTER_FRAMES
