"""The CT of a case: in HU, and plausible."""

from __future__ import annotations

from fluoronav.case.intensity import to_hounsfield
from fluoronav.case.plausible import check_hounsfield, check_size_of_patient
from fluoronav.case.volume import CtUnits, Volume


def checked_ct(volume: Volume, units: CtUnits | None) -> tuple[Volume, list[str]]:
    """A CT in HU, and what is unusual about it. Undeclared units are HU: to navigate on, none are inferred.

    Raises
    ------
    CaseError
        Its values are not HU, or its size is no patient's.
    """
    if units is not None:
        volume = to_hounsfield(volume, units, "units:").volume
    unusual = check_hounsfield(volume)
    check_size_of_patient(volume)
    return volume, [*volume.warnings, *unusual]
