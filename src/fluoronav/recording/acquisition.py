"""How recorded frames were taken, as an X-ray image says it. Needs the extra `pacs`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from fluoronav.dicom.objects import Acquisition
from fluoronav.wire.messages import FrameHeader


def acquisition_of(headers: Sequence[FrameHeader]) -> Acquisition:
    """What the headers of frames say, for the multi-frame image of them.

    Parameters
    ----------
    headers : sequence of FrameHeader
        At least one, in the order of the exposures. Constants are those of the first.
    """
    first = headers[0]
    joints = [h.joints() for h in headers]
    known = [j for j in joints if j is not None]
    all_known = known if len(known) == len(headers) else []
    return Acquisition(
        bits=first.bits,
        times_ms=tuple((h.t_acq - first.t_acq) / 1e6 for h in headers),
        inverse=first.polarity == "inverse",
        started=datetime.fromtimestamp(first.t_acq / 1e9, UTC).astimezone(),
        sdd_mm=first.sdd_mm,
        sid_mm=first.sid_mm,
        pixel_mm=(first.pixel_mm[0], first.pixel_mm[1]) if first.pixel_mm else None,
        primary_deg=tuple(j.orbital_deg for j in all_known),
        secondary_deg=tuple(j.angular_deg for j in all_known),
        kv=first.kv,
        ma=first.ma,
        pulse_ms=first.pulse_ms,
    )
