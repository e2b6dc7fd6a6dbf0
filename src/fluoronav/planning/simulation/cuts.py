"""Osteotomies: a bone cut by planes with a kerf, wedges taken out, pieces moved. Lengths in mm, LPS."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import numpy as np
from manifold3d import Manifold
from scipy.spatial.transform import Rotation

from fluoronav.geometry import transform_points
from fluoronav.planning.meshes.parts import Part, part
from fluoronav.planning.meshes.solid import Float, MeshError, surface_of
from fluoronav.planning.plan.schema import Cut, Move


@dataclass(frozen=True)
class Piece:
    """A piece of a cut bone.

    Attributes
    ----------
    sides : dict of str to int
        By id of the cut: 1 on the side of its normal, -1 on the other.
    body : Manifold
        LPS mm, where it lies now.
    taken_out : bool
        It belongs to a wedge.
    moved_by : tuple of str
        Ids of the moves.
    """

    sides: dict[str, int]
    body: Manifold
    taken_out: bool = False
    moved_by: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return ", ".join(f"{'past' if side > 0 else 'before'} {cut}" for cut, side in self.sides.items())


@dataclass(frozen=True)
class CutBone:
    """A bone after its cuts.

    Attributes
    ----------
    structure : str
    whole_mm3 : float
    pieces : tuple of Piece
    kerf : Manifold
        What the saw has taken, where the bone lay; may be empty.
    """

    structure: str
    whole_mm3: float
    pieces: tuple[Piece, ...]
    kerf: Manifold

    @property
    def conservation(self) -> float:
        """Volume of pieces and kerf against the whole bone, relative: 0 is exact."""
        return (sum(p.body.volume() for p in self.pieces) + self.kerf.volume()) / self.whole_mm3 - 1


def cut(structure: str, whole: Manifold, cuts: Sequence[Cut]) -> CutBone:
    """Cuts a bone by all planes; each goes through the whole bone.

    Parameters
    ----------
    structure : str
    whole : Manifold
        LPS mm.
    cuts : sequence of Cut
        In their order.

    Raises
    ------
    MeshError
        A cut has no normal, misses the bone, or names a wedge's second cut that is not there.
    """
    pieces, taken = [Piece({}, whole)], Manifold()
    for c in cuts:
        normal = np.asarray(c.normal_ct, float)
        length = float(np.linalg.norm(normal))
        if length < 1e-9:
            raise MeshError(f"cut {c.id}: normal_ct is 0; give the direction that the plane faces")
        normal /= length
        middle = float(normal @ c.point_ct)
        next_pieces, missed = [], True
        for p in pieces:
            sides, kerf = _split(p.body, normal, middle, c.kerf_mm)
            missed &= kerf.is_empty() and len(sides) < 2
            taken += kerf
            next_pieces += [replace(p, sides={**p.sides, c.id: side}, body=body) for side, body in sides.items()]
        if missed:
            raise MeshError(f"cut {c.id}: its plane misses {structure}; is point_ct in LPS mm?")
        pieces = next_pieces
    return CutBone(structure, whole.volume(), tuple(_without_wedges(pieces, cuts)), taken)


def _split(body: Manifold, normal: Float, middle: float, kerf_mm: float) -> tuple[dict[int, Manifold], Manifold]:
    """The bodies on both sides (1, -1), without empty ones, and what lies in the kerf."""
    axis = tuple(normal.tolist())
    far, rest = body.split_by_plane(axis, middle + kerf_mm / 2)
    kerf, near = rest.split_by_plane(axis, middle - kerf_mm / 2) if kerf_mm > 0 else (Manifold(), rest)
    return {side: b for side, b in ((1, far), (-1, near)) if not b.is_empty()}, kerf


def _without_wedges(pieces: list[Piece], cuts: Sequence[Cut]) -> list[Piece]:
    ids = {c.id for c in cuts}
    for c in cuts:
        if c.wedge_to is None:
            continue
        if c.wedge_to not in ids or c.wedge_to == c.id:
            raise MeshError(f"cut {c.id}: wedge_to names {c.wedge_to!r}, which is no other cut of {c.structure}")
        pieces = [
            replace(p, taken_out=p.taken_out or (p.sides.get(c.id) == 1 and p.sides.get(c.wedge_to) == -1))
            for p in pieces
        ]
    return pieces


def move(bone: CutBone, moves: Sequence[Move]) -> CutBone:
    """Moves the pieces on the side of each cut's normal, but for what a wedge takes out; in the order of the moves."""
    pieces = bone.pieces
    for m in moves:
        T = np.asarray(m.T_moved_ct, float)
        pieces = tuple(
            replace(p, body=p.body.transform(T[:3]), moved_by=(*p.moved_by, m.id))
            if p.sides.get(m.cut) == 1 and not p.taken_out
            else p
            for p in pieces
        )
    return replace(bone, pieces=pieces)


def overlap_mm3(bone: CutBone) -> float:
    """Volume in which pieces that stay lie in one another: much of it means that a move is wrong."""
    kept = [p.body for p in bone.pieces if not p.taken_out]
    return sum((a ^ b).volume() for k, a in enumerate(kept) for b in kept[:k])


def parts_of(bone: CutBone, moves: Sequence[Move] = ()) -> list[Part]:
    """Pieces and kerf, to be written and drawn; with the moves, moved pieces say how they were moved."""
    by_id = {m.id: np.asarray(m.T_moved_ct, float) for m in moves}
    out = []
    for p in bone.pieces:
        name = f"{bone.structure} {p.name}{' taken out' if p.taken_out else ''}"
        made = replace(part(name, "kerf" if p.taken_out else "piece", p.body), structure=bone.structure)
        if p.moved_by and moves:
            made = replace(made, T_moved_ct=reduce(lambda T, m: by_id[m] @ T, p.moved_by, np.eye(4)))
        out.append(made)
    if bone.kerf.is_empty():
        return out
    return [*out, replace(part(f"{bone.structure} kerf", "kerf", bone.kerf), structure=bone.structure)]


def report(bone: CutBone, cuts: Sequence[Cut], moves: Sequence[Move]) -> dict[str, Any]:
    """Volumes, angles and whether the volume is kept, for people and JSON."""
    by_id = {c.id: np.asarray(c.normal_ct, float) / np.linalg.norm(c.normal_ct) for c in cuts}
    wedges = [
        {
            "from": c.id, "to": c.wedge_to,
            "angle_deg": round(float(np.degrees(np.arccos(np.clip(by_id[c.id] @ by_id[c.wedge_to], -1, 1)))), 3),
            "volume_cm3": _cm3(sum(
                p.body.volume() for p in bone.pieces if p.sides.get(c.id) == 1 and p.sides.get(c.wedge_to) == -1
            )),
        }
        for c in cuts if c.wedge_to is not None
    ]  # fmt: skip
    return {
        "structure": bone.structure,
        "volume_cm3": _cm3(bone.whole_mm3),
        "kerf_cm3": _cm3(bone.kerf.volume()),
        "conservation": bone.conservation,
        "pieces": [
            {
                "name": p.name, "volume_cm3": _cm3(p.body.volume()), "watertight": surface_of(p.body).is_watertight,
                "taken_out": p.taken_out, "moved_by": list(p.moved_by),
            }
            for p in bone.pieces
        ],
        "wedges": wedges,
        "moves": [_move_report(m, by_id, cuts) for m in moves],
        "overlap_cm3": _cm3(overlap_mm3(bone)) if moves else 0.0,
    }  # fmt: skip


def _move_report(m: Move, normals: dict[str, Float], cuts: Sequence[Cut]) -> dict[str, Any]:
    T = np.asarray(m.T_moved_ct, float)
    at = np.asarray(next(c.point_ct for c in cuts if c.id == m.cut), float)
    shift = transform_points(T, at[None])[0] - at
    turn = Rotation.from_matrix(T[:3, :3]).as_rotvec(degrees=True)
    return {
        "id": m.id, "cut": m.cut, "rotation_deg": round(float(np.linalg.norm(turn)), 3),
        "about_normal_deg": round(float(turn @ normals[m.cut]), 3),
        "shift_at_cut_mm": round(float(np.linalg.norm(shift)), 3),
    }  # fmt: skip


def _cm3(mm3: float) -> float:
    return round(mm3 / 1000, 4)
