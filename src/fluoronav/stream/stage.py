"""What a stage is, and what it may be able to do besides.

The pipeline knows no stage by its class: it reads these declarations, and asks for a capability by its protocol.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from fluoronav.stream.alerts import AlertBook
from fluoronav.stream.frame import Alert, Budget, FrameRecord, RegistrationResult, ToolSample


@dataclass(frozen=True, slots=True)
class ViewPicture:
    """One enhanced frame for the display, uint8; `pixels` are valid until the next one is made."""

    seq: int
    t_acq: int
    pixels: NDArray[np.uint8]


class Stage(Protocol):
    """One step of the chain.

    Attributes
    ----------
    name : str
        As in the launch file and in the overlay's `stages`.
    engine : str
        What it computes on, for `health`.
    reads : frozenset of str
        Fields of the frame record that it reads and another stage writes.
    writes : frozenset of str
        Fields of the frame record that it writes in `process`.
    """

    name: str
    reads: frozenset[str]
    writes: frozenset[str]

    @property
    def engine(self) -> str: ...

    def prepare(self, case: Any, camera: Any, progress: Callable[[str], None]) -> None:
        """Loads, allocates, compiles and warms, before the first frame."""
        ...

    def process(self, frame: FrameRecord, budget: Budget) -> None:
        """Runs on the frame path and adds its results to the record."""
        ...

    def idle(self, frame: FrameRecord, budget: Budget) -> None:
        """Runs after the overlay has left.

        Parameters
        ----------
        frame : FrameRecord
            The frame whose overlay has left, with the results of all stages. Its arrays are valid until the next frame.
        budget : Budget
            Until the next frame is expected. Work of milliseconds waits for a frame that leaves time for it.
        """
        ...

    def close(self) -> None:
        """Ends its threads."""
        ...


@runtime_checkable
class RunsNetworks(Protocol):
    """Runs neural networks, which may fall back to another engine.

    Attributes
    ----------
    models : mapping of str to str
        SHA-256 by the networks' names.
    fault : str
        Why one does not run on what the launch file asks for; empty when all do.
    """

    @property
    def models(self) -> Mapping[str, str]: ...

    @property
    def fault(self) -> str: ...


@runtime_checkable
class HandlesRequests(Protocol):
    """Carries out requests, between two frames, on the frame path's thread.

    Attributes
    ----------
    handles : mapping of str to callable
        By the request's `op`.
    """

    @property
    def handles(self) -> Mapping[str, Callable[..., Any]]: ...


@runtime_checkable
class ObservesTools(Protocol):
    """Takes an external tracker's samples."""

    @property
    def rejected(self) -> Mapping[str, int]:
        """Samples that were not believed, by reason."""
        ...

    def observe(self, sample: ToolSample) -> None: ...


@runtime_checkable
class MakesPictures(Protocol):
    """Makes the picture for the display; calls `on_picture` from a thread of its own."""

    on_picture: Callable[[ViewPicture], None]


@runtime_checkable
class HoldsPose(Protocol):
    """Follows the patient's pose, which a person may accept."""

    @property
    def latest(self) -> RegistrationResult | None: ...

    @property
    def accepted(self) -> bool: ...

    def restore_acceptance(self, T_camera_ct: NDArray[np.float64]) -> None: ...


@runtime_checkable
class RendersKeyframes(Protocol):
    """Follows the patient's pose from keyframes.

    Attributes
    ----------
    keyframes : mapping of str to int
        How many were rendered since the start: `in_frames`, while a frame waited, and `beside` the frame path.
    """

    @property
    def keyframes(self) -> Mapping[str, int]: ...


@runtime_checkable
class MayRest(Protocol):
    """Leaves its work out where the computer does not hold it; the chain goes on without.

    Whether it rests, and why, is said by `pipeline/rests.py`.

    Attributes
    ----------
    name : str
        The stage's.
    missing : str
        What it lacks to work at all, in words; empty where nothing is missing.
    worked, left_out : int
        Frames since the start in which it did its work, and those that left it too little time.
    takes_ms : float
        What its work on a frame takes.
    """

    name: str
    missing: str
    worked: int
    left_out: int

    @property
    def takes_ms(self) -> float: ...

    def rest(self, frame: FrameRecord) -> None:
        """Runs instead of `process` while the chain has it rest."""
        ...


@runtime_checkable
class WatchesBreathing(Protocol):
    """Tells breathing from a slip of the patient.

    Attributes
    ----------
    breaths : mapping of str to int
        Frames by what was said of them, and `slips`, since the start.
    """

    @property
    def breaths(self) -> Mapping[str, int]: ...


@runtime_checkable
class WitnessesPictures(Protocol):
    """Asks each picture whether pose and tools lie where it shows them.

    Attributes
    ----------
    verdicts : mapping of str to int
        What frames have said since the start, by reason; of each tool one in each frame.
    """

    @property
    def verdicts(self) -> Mapping[str, int]: ...


@runtime_checkable
class HoldsAlerts(Protocol):
    """Raises alerts about the patient."""

    @property
    def alerts(self) -> AlertBook: ...

    def restore(self, alerts: Sequence[Alert]) -> None: ...


@runtime_checkable
class FailsWith(Protocol):
    """Says what its fields hold in a frame in which it has failed; others are left as they were."""

    on_failure: Mapping[str, Any]


def blank_counts(rows: int, cols: int) -> Iterator[NDArray[Any]]:
    """Blank frames of every type that `FrameRecord.counts` may have, to compile kernels with.

    Numba compiles anew for an array that may not be written to, which is what the wire delivers.
    """
    for dtype, writeable in product((np.uint8, np.uint16), (False, True)):
        counts = np.ones((rows, cols), dtype)
        counts.flags.writeable = writeable
        yield counts
