"""A vertebra as screws need it: its bone, its canal and its two pedicles."""

from __future__ import annotations

from dataclasses import dataclass

import SimpleITK as sitk

from fluoronav.planning.plan.schema import Side
from fluoronav.planning.screws.bone import Bone, VertebraError, cut_out
from fluoronav.planning.screws.canal import Canal, find_canal
from fluoronav.planning.screws.pedicle import SIGNS, Pedicle, find_pedicle
from fluoronav.planning.screws.surfaces import Surfaces

# Their pedicles are beside the vertebral artery, and C1 and C2 have another shape; the sacrum has none.
_WITHOUT = {f"C{n}" for n in range(1, 7)} | {"S1"}


@dataclass(frozen=True)
class Vertebra:
    """One vertebra.

    Attributes
    ----------
    bone : Bone
    canal : Canal
    surfaces : Surfaces
        The mask's own surface, which screws are graded with.
    pedicles : dict
        By side; a side is absent where no way leads through its pedicle.
    missing : dict
        Why a side is absent.
    """

    bone: Bone
    canal: Canal
    surfaces: Surfaces
    pedicles: dict[Side, Pedicle]
    missing: dict[Side, str]

    @property
    def level(self) -> str:
        return self.bone.level

    @property
    def notes(self) -> tuple[str, ...]:
        """What is unusual about it."""
        if not self.canal.is_open:
            return self.bone.notes
        note = (
            f"{self.level}: its ring is open at the back (a laminectomy, a cleft arch, an incomplete label): the back "
            "of the spinal canal is assumed; look at its screws in the CT"
        )
        return (*self.bone.notes, note)


def read_vertebra(labels: sitk.Image, value: int, level: str) -> Vertebra:
    """Finds canal and pedicles of a vertebra; takes half a second.

    Parameters
    ----------
    labels : SimpleITK.Image
        Label map on any grid.
    value : int
        Of the vertebra.
    level : str
        Its name.

    Raises
    ------
    VertebraError
        The text says what is wrong with the label, and what to do.
    """
    if level in _WITHOUT:
        raise VertebraError(f"{level}: pedicle screws are proposed from C7 to L6, not here: draw the screw by hand")
    bone = cut_out(labels, value, level)
    canal, surfaces = find_canal(bone), Surfaces.of(bone.mask, bone.origin_ct, bone.step_ct)
    pedicles: dict[Side, Pedicle] = {}
    missing: dict[Side, str] = {}
    for side in SIGNS:
        try:
            pedicles[side] = find_pedicle(bone, surfaces, canal, side)
        except VertebraError as error:
            missing[side] = str(error)
    return Vertebra(bone, canal, surfaces, pedicles, missing)
