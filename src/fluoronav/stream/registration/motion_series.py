"""A motion in two directions over the last half minute: what of it is periodic, and what is a step that stays.

For each period a sine and a drift are fitted to the motion; the period with the smallest residual is taken
(a Lomb-Scargle periodogram with a floating mean and trend; Zechmeister and Kuerster, Astronomy and Astrophysics 496,
2009). A step is told from a breath by the motion's range: it moves both ends, a deep or held breath at most one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SeriesSettings:
    """How the motion is kept and fitted; all chosen.

    Attributes
    ----------
    slot_s : float
        Samples within it count as their mean.
    slots : int
        That are kept: half a minute.
    fitted_s : tuple of float
        The last so many seconds are fitted: two and a half of the longest breaths, or of usual ones where the patient
        has breathed otherwise before.
    shortest_s, longest_s : float
        Periods that are tried: 7 to 30 breaths a minute.
    periods : int
        Between them, by equal ratios.
    least_periods : float
        Of the longest that is tried in the samples at hand.
    least_samples : int
        With fewer in the fitted time nothing is said.
    per_period : float
        So many samples in a period at the least.
    recent_s : float
        Over which it is asked whether the fit still holds.
    least_of_window : float
        Part of the samples of a window that must be there, at the rate of those before.
    tail : float
        Part of the samples beyond either end of a range.
    beam_deg : float
        Samples are compared that were seen along beams so near to the present one.
    """

    slot_s: float = 0.1
    slots: int = 300
    fitted_s: tuple[float, float] = (20.0, 10.0)
    shortest_s: float = 2.0
    longest_s: float = 8.0
    periods: int = 25
    least_periods: float = 1.5
    least_samples: int = 10
    per_period: float = 2.5
    recent_s: float = 1.5
    least_of_window: float = 0.7
    tail: float = 0.05
    beam_deg: float = 20.0


SETTINGS = SeriesSettings()
_NS_PER_SLOT = SETTINGS.slot_s * 1e9
_CYCLE = np.linspace(0, 2 * np.pi, 24, endpoint=False)


@dataclass(frozen=True, slots=True)
class PeriodicFit:
    """The periodic part of a motion.

    Attributes
    ----------
    period_s, amplitude_mm : float
        The amplitude is peak to peak, along the direction in which it is largest.
    phase : float
        Of the newest sample: part of the period since the motion was farthest in its first direction, 0 to 1.
    explained : float
        Part of the motion's power, without drift, that is periodic.
    recent_mm : float
        Root mean square of what the last samples are off it.
    spread_mm : float
        Of the motion without drift: twice the root of two of its standard deviation, which is a sine's amplitude.
    """

    period_s: float
    amplitude_mm: float
    phase: float
    explained: float
    recent_mm: float
    spread_mm: float


class MotionSeries:
    """Samples in slots of equal time, the newest last; nothing is allocated with a sample."""

    def __init__(self) -> None:
        n = SETTINGS.slots
        self._mm, self._beams, self._count = np.zeros((2, n)), np.zeros((3, n)), np.zeros(n)
        self._slot: int | None = None  # number of the newest slot
        self._periods = np.geomspace(SETTINGS.shortest_s, SETTINGS.longest_s, SETTINGS.periods)
        self._ago_s = SETTINGS.slot_s * np.arange(1 - n, 1)
        self._trend = 2 * self._ago_s / SETTINGS.fitted_s[0] + 1
        columns = np.stack([self._columns(period, 1) for period in self._periods])  # (periods, 4, n)
        self._basis = np.ascontiguousarray(columns.reshape(-1, n))
        self._products = np.ascontiguousarray((columns[:, :, None] * columns[:, None]).reshape(-1, n))

    def clear(self) -> None:
        """Forgets all samples."""
        self._count[:], self._slot = 0, None

    def add(self, t_ns: int, first_mm: float, second_mm: float, beam: Float) -> None:
        """Takes a sample.

        Parameters
        ----------
        t_ns : int
            Not before the last; a sample from before begins the series anew.
        first_mm, second_mm : float
        beam : ndarray, shape (3,)
            Unit vector of the ray that it was seen along.
        """
        slot = int(t_ns // _NS_PER_SLOT)
        on = 0 if self._slot is None else slot - self._slot
        if self._slot is None or on < 0 or on >= SETTINGS.slots:
            self._count[:], on = 0, 0
        if on:
            for kept in (self._mm, self._beams):
                kept[:, :-on] = kept[:, on:]
            self._count[:-on] = self._count[on:]
            self._count[-on:] = 0
        self._slot = slot
        self._count[-1] += 1
        if self._count[-1] == 1:
            self._mm[:, -1] = 0
        share, newest = 1 / self._count[-1], self._mm[:, -1]
        newest[0] += share * (first_mm - newest[0])
        newest[1] += share * (second_mm - newest[1])
        self._beams[:, -1] = beam

    @property
    def newest(self) -> int | None:
        """Number of the newest slot."""
        return self._slot

    def turned_deg(self) -> float:
        """How far the beam has turned while the samples were taken that are compared with the newest, degrees."""
        alike = np.clip((self._beams[:, -1] @ self._beams)[self._seen()], -1, 1)
        return float(np.rad2deg(np.arccos(alike.min()))) if len(alike) else 0.0

    def periodic(self, seconds: float = SETTINGS.fitted_s[0]) -> PeriodicFit | None:
        """The periodic part of the last seconds; None with too few samples for its period."""
        seen = self._seen()
        seen[: -round(seconds / SETTINGS.slot_s)] = False
        count = int(np.count_nonzero(seen))
        if count < SETTINGS.least_samples:
            return None
        span_s = -self._ago_s[int(seen.argmax())]
        least_s = SETTINGS.per_period * span_s / (count - 1)
        tried = (self._periods <= span_s / SETTINGS.least_periods) & (self._periods >= least_s)
        if np.count_nonzero(tried) < 3:
            return None
        weight, mm = seen.astype(np.float64), np.where(seen, self._mm, 0)
        A = (self._products @ weight).reshape(-1, 4, 4) + 1e-9 * np.eye(4)
        g = (self._basis @ mm.T).reshape(-1, 4, 2)
        power = np.where(tried, (np.linalg.solve(A, g) * g).sum(axis=(1, 2)), -1)
        longest = int(np.flatnonzero(tried)[-1])
        if power.argmax() == longest < len(power) - 1:
            return None  # the period may be longer than what has been seen tells
        period = self._between(power)
        without = float((np.linalg.solve(A[0, :2, :2], g[0, :2]) * g[0, :2]).sum())
        moving = max(float((mm * mm).sum()) - without, 1e-12)
        # A breath is no sine; with few samples there is no more to be had of it.
        harmonics = 2 if period > 2 * least_s and count >= 2 * SETTINGS.least_samples else 1
        columns = self._columns(period, harmonics)
        coefficients = np.linalg.solve(
            (columns * weight) @ columns.T + 1e-9 * np.eye(len(columns)), columns @ mm.T
        )  # (columns, 2)
        off = np.where(seen, mm - coefficients.T @ columns, 0)
        recent = -round(SETTINGS.recent_s / SETTINGS.slot_s)
        last = max(int(np.count_nonzero(seen[recent:])), 1)
        amplitude, phase = _of_cycle(np.asarray(coefficients[2:], np.float64))
        return PeriodicFit(
            period, amplitude, phase,
            explained=1 - float((off * off).sum()) / moving,
            recent_mm=float(np.sqrt((off[:, recent:] ** 2).sum() / last)),
            spread_mm=float(2 * np.sqrt(2 * moving / count)),
        )  # fmt: skip

    def range_mm(self, seconds: float) -> float | None:
        """The larger range of the two directions over the last seconds; None where they are not all there."""
        n = round(seconds / SETTINGS.slot_s)
        seen = self._seen()
        if not seen[-n - 2 : -n + 2].any():
            return None
        return float(np.ptp(self._mm[:, -n:][:, seen[-n:]], axis=1).max())

    def step(self, window_s: float, least_before_s: float, most_range_mm: float = np.inf) -> Float:
        """By how much both ends of the motion's range have moved between the time before a window and the window.

        Parameters
        ----------
        window_s : float
            The last so many seconds.
        least_before_s : float
            So much must have been seen before.
        most_range_mm : float
            With a larger range, before or in the window, there is no step.

        Returns
        -------
        ndarray, shape (2,)
            mm; 0 in a direction in which they have not moved alike.
        """
        n, seen = round(window_s / SETTINGS.slot_s), self._seen()
        before, now = seen[:-n], seen[-n:]
        slots = len(before) - int(before.argmax()) if before.any() else 0
        if slots * SETTINGS.slot_s < least_before_s:
            return np.zeros(2)
        if now.sum() < max(SETTINGS.least_of_window * n * before.sum() / slots, 3):
            return np.zeros(2)
        was, is_now = _ends(self._mm[:, :-n][:, before]), _ends(self._mm[:, -n:][:, now])  # (2 directions, 2 ends)
        if max(np.diff(was, axis=1).max(), np.diff(is_now, axis=1).max()) > most_range_mm:
            return np.zeros(2)
        moved = is_now - was
        alike = moved[:, 0] * moved[:, 1] > 0
        return np.where(alike, np.sign(moved[:, 0]) * np.abs(moved).min(axis=1), 0.0)

    def take_out(self, step_mm: Float, within_s: float, period_s: float) -> None:
        """Moves what was before a step, so that the series goes on as if there had been none.

        Parameters
        ----------
        step_mm : ndarray, shape (2,)
        within_s : float
            Seconds before the newest pose in which the step is looked for. It is placed where the motion without it
            repeats itself best after a period.
        period_s : float
            Of a breath; for a patient who rests, of any length.
        """
        size_mm = float(np.linalg.norm(step_mm))
        along, seen = step_mm @ self._mm / size_mm, self._seen()
        late = max(round(period_s / SETTINGS.slot_s), 1)
        now = np.flatnonzero(seen[late:] & seen[:-late]) + late
        places = np.flatnonzero(seen)
        places = places[places >= SETTINGS.slots - round(within_s / SETTINGS.slot_s)]
        if not len(now) or not len(places):
            return
        differs = along[now] - along[now - late]
        stepped = (now - late < places[:, None]) & (places[:, None] <= now)
        at = places[int(((differs - size_mm * stepped) ** 2).sum(axis=1).argmin())]
        self._mm[:, :at] += step_mm[:, None]

    def _seen(self) -> NDArray[np.bool_]:
        near = self._beams[:, -1] @ self._beams > np.cos(np.deg2rad(SETTINGS.beam_deg))
        return (self._count > 0) & near

    def _columns(self, period_s: float, harmonics: int) -> Float:
        """Mean, trend, and cosine and sine of each harmonic, shape (2 + 2 harmonics, slots)."""
        turn = 2 * np.pi / period_s * self._ago_s
        waves = [f(k * turn) for k in range(1, harmonics + 1) for f in (np.cos, np.sin)]
        return np.asarray(np.stack([np.ones_like(turn), self._trend, *waves]), np.float64)

    def _between(self, power: Float) -> float:
        """The period of the highest power, between those that were tried."""
        k = int(power.argmax())
        if not 0 < k < len(power) - 1 or min(power[k - 1], power[k + 1]) < 0:
            return float(self._periods[k])
        low, top, high = power[k - 1 : k + 2]
        off = 0.5 * (low - high) / min(low - 2 * top + high, -1e-12)
        return float(self._periods[k] * (self._periods[1] / self._periods[0]) ** np.clip(off, -0.5, 0.5))


def _of_cycle(coefficients: Float) -> tuple[float, float]:
    """Peak to peak of a cycle, shape (2 harmonics, 2 directions), and where in it the newest sample is."""
    waves = [f(k * _CYCLE) for k in range(1, len(coefficients) // 2 + 1) for f in (np.cos, np.sin)]
    cycle = np.stack(waves).T @ coefficients
    axis = np.linalg.eigh(cycle.T @ cycle)[1][:, -1]
    along = cycle @ (axis if axis[0] >= 0 else -axis)
    return float(np.ptp(along)), float(-_CYCLE[int(along.argmax())] / (2 * np.pi) % 1)


def _ends(mm: Float) -> Float:
    """Both ends of the range of samples, shape (2 directions, 2 ends)."""
    ordered = np.sort(mm, axis=1)
    k = int(SETTINGS.tail * mm.shape[1])
    return ordered[:, [k, -1 - k]]
