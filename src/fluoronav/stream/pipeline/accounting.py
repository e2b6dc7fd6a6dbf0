"""Every frame is accounted for: taken up, or dropped for a reason that is counted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from fluoronav.geometry import Camera
from fluoronav.stream.pipeline.calibration_check import CalibrationCheck
from fluoronav.wire import FrameHeader


@dataclass(frozen=True, slots=True)
class FrameLimits:
    """When a frame belongs to the grabber that is followed, and fits its calibration.

    Attributes
    ----------
    believed_after : int
        A grabber that starts again counts from anywhere, by any clock: so many frames in a row are believed. So are as
        many that say another polarity, or whose clock is steadily ahead.
    silence_ns : int
        A grabber that has been silent for so long may start again with its first frame.
    most_lost : int
        A larger gap between two numbers is a jump, and no loss.
    fastest_fps : float
        So is a gap of more frames than this rate gives in the time between them.
    burst : int
        So many frames may come at once: they waited in a queue.
    wraps : tuple of int
        Counters of 16, 31, 32 and 63 bits begin again at 0.
    steady_ns : int
        Clocks that are ahead by the same within so much are ahead, and no frame's fault: a busy computer delays less.
    outlasts : float
        They are believed when the sequence before has been silent for so many of its usual times, too.
    conflict_after : int
        So many frames of another sequence, while the one that is followed goes on, are another grabber's.
    conflict_ns : int
        It is said for so long after it was last seen.
    """

    believed_after: int = 10
    silence_ns: int = 500_000_000
    most_lost: int = 10_000
    fastest_fps: float = 240.0
    burst: int = 64
    wraps: tuple[int, ...] = (2**16, 2**31, 2**32, 2**63)
    steady_ns: int = 40_000_000
    outlasts: float = 3.0
    conflict_after: int = 3
    conflict_ns: int = 3_000_000_000


_LIMITS = FrameLimits()
# Numbers of invalid messages that are remembered, so that their gap is not counted twice.
_REMEMBERED = 1024
# The usual time between two frames: how much a new one counts, and after how many it is known.
_PERIOD_SHARE, _PERIOD_KNOWN_AFTER = 0.1, 5


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


@dataclass(slots=True)
class _Run:
    """Frames that follow one another, but not the ones that are followed."""

    length: int = 0
    seq: int = -1
    t_acq: int = 0
    t_recv: int = 0
    in_row: int = 0  # since the followed sequence was last continued
    between: int = 0  # how often that was continued meanwhile


class FrameAccount:
    """Counts one source's frames, and decides which are taken up.

    Parameters
    ----------
    rows, cols : int
        The camera's image size: a frame of another size cannot be registered with it.
    max_future_ns : int
        How far a single frame's time may lie ahead of the others'.
    focal_px : float or tuple of 2 float, optional
        The camera's focal length, pixels, or the horizontal and the vertical one: frames that say another are refused.
    sdd_mm : float, optional
        The source-to-detector distance that the camera is calibrated for, where its file says it.
    camera_names : tuple of str
        What a frame may call this calibration; empty: anything.
    camera_file : str
        For messages.
    limits : FrameLimits, optional

    Attributes
    ----------
    totals : FrameTotals
    conflict : str
        That another grabber sends on the same topic, in words; empty where none does.
    ahead_ns : int
        How far the grabber's clock is steadily ahead of ours, where that is more than `max_future_ns`; else 0.
    restarts : int
        How often another sequence of frames was believed.
    """

    def __init__(
        self,
        rows: int,
        cols: int,
        max_future_ns: int,
        *,
        focal_px: float | tuple[float, float] | None = None,
        sdd_mm: float | None = None,
        camera_names: tuple[str, ...] = (),
        camera_file: str = "the camera file",
        limits: FrameLimits = _LIMITS,
    ) -> None:
        self._size = rows, cols
        self._max_future_ns, self._limits = max_future_ns, limits
        both = (focal_px, focal_px) if isinstance(focal_px, (int, float)) else focal_px
        self._calibration = CalibrationCheck(both, sdd_mm, camera_names, camera_file)
        self._setting: tuple[str, int, str] | None = None
        self._other_setting: tuple[str, int, str] | None = None
        self._other_setting_for = 0
        self._last_seq: int | None = None
        self._last_t_acq = self._last_t_recv = 0
        self._before = (-1, 0)  # number and time of the frame before the last
        self._period_ns, self._periods = 0.0, 0
        self._spoiled: set[int] = set()
        self._run = _Run()
        self._ahead_for, self._ahead_candidate = 0, 0
        self._conflict_at = 0
        self._pending = {"network": 0, "overload": 0, "invalid": 0}
        self.conflict = ""
        self.ahead_ns = 0
        self.restarts = 0
        self.totals = FrameTotals()

    @classmethod
    def of(cls, camera: Camera, max_future_ns: int) -> FrameAccount:
        """The account of frames that are registered with a camera."""
        return cls(
            camera.rows,
            camera.cols,
            max_future_ns,
            focal_px=(float(camera.K[0, 0]), float(camera.K[1, 1])),
            sdd_mm=camera.sdd_mm,
            camera_names=camera.names,
            camera_file=camera.name,
        )

    def reject(self, name: str, seq: int | None = None) -> None:
        """Counts a message that breaks the protocol; ``name`` is the field that does."""
        self.totals.received += 1
        self._invalid(name, seq)

    def admit(self, header: FrameHeader, t_recv: int) -> str | None:
        """Decides about a valid frame.

        Parameters
        ----------
        header : FrameHeader
        t_recv : int
            When it arrived, ns since the Unix epoch by our clock.

        Returns
        -------
        str or None
            None when it may be taken up; otherwise why not, beginning with the field (it is then counted as invalid).
        """
        self.totals.received += 1
        if self.conflict and abs(t_recv - self._conflict_at) > self._limits.conflict_ns:
            self.conflict = ""
        if (header.rows, header.cols) != self._size:
            name = "rows" if header.rows != self._size[0] else "cols"
            self._invalid(name, header.seq)
            size = f"{self._size[0]} x {self._size[1]}"
            return f"{name}: frame is {header.rows} x {header.cols}, the camera file says {size}"
        unfit = self._calibration.fault(header)
        if unfit is not None:
            self._invalid(unfit.partition(":")[0], header.seq)
            return unfit
        advance = 1 if self._last_seq is None else self._advance(header, t_recv)
        is_ahead = self._is_ahead(header.t_acq - t_recv)
        if advance and self._last_seq is not None and self._is_of_other_run(header):
            advance = 0
        refused = None if advance else self._stray(header, t_recv)
        if refused is not None:
            self._invalid("seq", None)
            return refused
        if is_ahead:
            self._invalid("t_acq", header.seq)
            return (
                f"t_acq: lies {(header.t_acq - t_recv) / 1e6:.0f} ms in the future; are the clocks synchronised? "
                f"{self._limits.believed_after} frames in a row that agree are believed"
            )
        if not advance:
            self._begin_anew()
        elif self._is_of_other_setting(header):
            self._invalid(self._changed(header), header.seq)
            return self._other_setting_text(header)
        elif self._last_seq is not None:
            self._count_lost(header.seq, advance)
            self._learn_period(header.t_acq - self._last_t_acq, advance)
        if self._spoiled:
            self._spoiled = {s for s in self._spoiled if self._steps(header.seq, s)}
        self._before = self._before if self._last_seq is None else (self._last_seq, self._last_t_acq)
        self._last_seq, self._last_t_acq, self._last_t_recv = header.seq, header.t_acq, t_recv
        self._setting, self._other_setting_for = (header.polarity, header.bits, header.dtype), 0
        self._run.in_row = 0
        self._run.between += 1
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
        if seq is None or self._last_seq is None or len(self._spoiled) >= _REMEMBERED:
            return
        if self._steps(self._last_seq, seq):
            self._spoiled.add(seq)

    # Numbers

    def _steps(self, seq: int, later: int) -> int:
        """How many frames a number is after another, over the end of the grabber's counter; 0 where it is not."""
        if later > seq:
            steps = later - seq
            return steps if steps <= self._limits.most_lost + 1 else 0
        for modulus in self._limits.wraps:
            if seq < modulus and modulus - seq + later <= self._limits.most_lost:
                return modulus - seq + later
        return 0

    def _advance(self, header: FrameHeader, t_recv: int) -> int:
        """How many frames this one is after the last, as far as the time between them allows; 0 for another run's."""
        assert self._last_seq is not None
        steps = self._steps(self._last_seq, header.seq)
        if steps <= 1:
            return steps
        elapsed_ns = max(header.t_acq - self._last_t_acq, t_recv - self._last_t_recv, 0)
        return steps if steps <= self._limits.burst + elapsed_ns * self._limits.fastest_fps / 1e9 else 0

    def _count_lost(self, seq: int, advance: int) -> None:
        assert self._last_seq is not None
        lost = advance - 1
        if lost:
            last = self._last_seq
            lost -= sum(1 for s in self._spoiled if 0 < self._steps(last, s) < advance)
            self._pending["network"] += lost
            self.totals.network += lost

    def _learn_period(self, between_ns: int, advance: int) -> None:
        if advance == 1 and between_ns > 0:
            self._periods += 1
            share = max(_PERIOD_SHARE, 1 / self._periods)
            self._period_ns += share * (min(between_ns, self._limits.silence_ns) - self._period_ns)

    # Two sequences

    def _is_of_other_run(self, header: FrameHeader) -> bool:
        """Whether a frame that could be the next of the followed ones is rather the next of another grabber's."""
        run = self._run
        if not run.length or header.seq != run.seq + 1 or self._periods < _PERIOD_KNOWN_AFTER:
            return False
        mine = abs(header.t_acq - self._last_t_acq - self._period_ns)
        return abs(header.t_acq - run.t_acq - self._period_ns) < mine

    def _stray(self, header: FrameHeader, t_recv: int) -> str | None:
        """Why a frame that does not continue the followed ones is refused; None where the grabber has begun anew."""
        assert self._last_seq is not None
        limits, run, last = self._limits, self._run, self._last_seq
        not_after = f"seq: {header.seq} is not after {last}"
        if header.seq == last and header.t_acq == self._last_t_acq:
            return f"{not_after}: the same frame came twice"
        if self._takes_back(header):
            return f"seq: {header.seq} comes after {last}, which another grabber seems to have sent"
        silent_ns = t_recv - self._last_t_recv
        silent = silent_ns > limits.silence_ns
        if silent and header.t_acq > self._last_t_acq and not self.conflict:
            return None
        if header.seq == run.seq + 1 and header.t_acq > run.t_acq and abs(t_recv - run.t_recv) < limits.conflict_ns:
            run.length += 1
            run.in_row += 1
        else:
            run.length = run.in_row = 1
            run.between = 0
        run.seq, run.t_acq, run.t_recv = header.seq, header.t_acq, t_recv
        if run.length >= limits.conflict_after and run.between >= limits.conflict_after - 1 and not silent:
            self.conflict = f"another grabber sends on frame/{header.source}: its frames are refused"
            self._conflict_at = t_recv
        ended = silent_ns >= limits.outlasts * self._period_ns
        if run.in_row >= limits.believed_after and ended and not self.conflict:
            return None
        if self.conflict:
            return f"seq: {header.seq} does not continue {last}: another grabber sends on frame/{header.source}"
        if header.seq > last:
            not_after = f"seq: {header.seq} is {header.seq - last} after {last}, more than can have been sent meanwhile"
        return f"{not_after}; {limits.believed_after} frames in a row are believed as a new start"

    def _takes_back(self, header: FrameHeader) -> bool:
        """Follows this frame's sequence again where the last frame was another grabber's that came in between.

        Frames of one grabber come in order: that of the number after the one before the last comes too late. Of two
        that could be next, the one that keeps the time of those before was followed.
        """
        seq, t_acq = self._before
        last = self._last_seq
        if seq + 1 != header.seq or last is None or self._periods < _PERIOD_KNOWN_AFTER:
            return False
        own = abs(header.t_acq - t_acq - self._period_ns)
        others = abs(self._last_t_acq - t_acq - (last - seq) * self._period_ns)
        if own >= others:
            return False
        run = self._run
        run.length, run.in_row, run.between = max(run.length, 1), 0, 0
        run.seq, run.t_acq, run.t_recv = last, self._last_t_acq, self._last_t_recv
        self._last_seq, self._last_t_acq = header.seq, header.t_acq
        return True

    def _begin_anew(self) -> None:
        self.restarts += 1
        self._spoiled.clear()
        self._period_ns, self._periods, self._before = 0.0, 0, (-1, 0)
        self._run = _Run()

    # Clocks

    def _is_ahead(self, ahead_ns: int) -> bool:
        """Whether a frame alone is from the future; a clock that is ahead of ours in every frame is believed."""
        limits = self._limits
        is_ahead = ahead_ns > self.ahead_ns + self._max_future_ns
        if not is_ahead and (self.ahead_ns == 0 or ahead_ns > self.ahead_ns - self._max_future_ns):
            self._ahead_for = 0
            return False
        agrees = abs(ahead_ns - self._ahead_candidate) <= limits.steady_ns
        self._ahead_for = self._ahead_for + 1 if agrees and self._ahead_for else 1
        # A delay makes a clock look less ahead than it is.
        self._ahead_candidate = max(ahead_ns, self._ahead_candidate) if self._ahead_for > 1 else ahead_ns
        if self._ahead_for < limits.believed_after:
            return is_ahead
        self._ahead_for = 0
        self.ahead_ns = self._ahead_candidate if self._ahead_candidate > self._max_future_ns else 0
        return False

    # What a frame says of its making

    def _is_of_other_setting(self, header: FrameHeader) -> bool:
        """Whether a frame says another polarity or depth than those before, and not yet often enough to be believed."""
        setting = (header.polarity, header.bits, header.dtype)
        if self._setting is None or setting == self._setting:
            return False
        self._other_setting_for = self._other_setting_for + 1 if setting == self._other_setting else 1
        self._other_setting = setting
        return self._other_setting_for < self._limits.believed_after

    def _changed(self, header: FrameHeader) -> str:
        assert self._setting is not None
        if header.polarity != self._setting[0]:
            return "polarity"
        return "bits" if header.bits != self._setting[1] else "dtype"

    def _other_setting_text(self, header: FrameHeader) -> str:
        assert self._setting is not None
        name = self._changed(header)
        before = self._setting[("polarity", "bits", "dtype").index(name)]
        return (
            f"{name}: is {getattr(header, name)}, but {before} until now; {self._limits.believed_after} frames in a "
            "row that say so are believed"
        )
