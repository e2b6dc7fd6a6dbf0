"""Views for a screw: the ones with the smallest predicted error of its tip, and what that error means for its walls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fluoronav.case.distance import sample_distances
from fluoronav.planning.plan.schema import Screw
from fluoronav.planning.screws.catalogue import Catalogue
from fluoronav.planning.screws.pedicle import Axis, Search
from fluoronav.planning.screws.proposal import ScrewProposal, fitted
from fluoronav.planning.screws.vertebra import Vertebra
from fluoronav.planning.views.prediction import Covariances, PredictedView, beam_angle_deg, sigma_mm, together

Float = NDArray[np.float64]

NORMAL_95 = 1.96  # of a normal variable, two-sided


@dataclass(frozen=True, slots=True)
class ChoiceSettings:
    """How views are chosen."""

    apart_deg: float = 30.0  # between two beams of a pair; from here on two views fix the depth (`bench registration`)
    other_weight: float = 0.05  # of the error in all directions beside that towards the canal; chosen: decides ties
    samples: int = 2048  # poses drawn for a probability; chosen: 1 % in the middle of the range
    step_mm: float = 1.0  # along a screw; chosen: as in the proposal
    seed: int = 5  # of the poses drawn: the same screw has the same probability


SETTINGS = ChoiceSettings()


@dataclass(frozen=True)
class ViewChoice:
    """One view, or two, for a screw.

    Attributes
    ----------
    views : tuple of (orbital_deg, angular_deg)
        The first is the one that is guided in.
    error_mm : float
        Expected error of the tip towards the spinal canal, 95 %.
    bound_mm : float
        The same with the floors of the registration's covariance: what the guidance will state.
    across_mm : float
        That bound in the worst direction across the screw.
    covariances : Covariances
    """

    views: tuple[tuple[float, float], ...]
    error_mm: float
    bound_mm: float
    across_mm: float
    covariances: Covariances


def towards_canal_ct(screw: Screw, vertebra: Vertebra) -> Float:
    """Unit vector across a screw from its axis at the pedicle to the spinal canal's middle, LPS.

    A screw that goes through the canal's middle itself gets the direction to the patient's midline.
    """
    canal = vertebra.canal
    entry, tip = canal.from_ct(np.array([screw.entry_ct, screw.tip_ct], np.float64))
    along = (tip - entry) / np.linalg.norm(tip - entry)
    pedicle = vertebra.pedicles.get(screw.side)
    front = pedicle.isthmus[1] if pedicle else 0.0
    at = entry + along * np.clip((front - entry[1]) / (along[1] or 1.0), 0, np.linalg.norm(tip - entry))
    to = np.array([-at[0], 0.0, 0.0]) if abs(at[0]) > 0.5 else np.array([1.0, 0, 0])
    across = to - (to @ along) * along
    return canal.T_ct_vertebra[:3, :3] @ (across / np.linalg.norm(across))


def best_view(screw: Screw, vertebra: Vertebra, views: Sequence[PredictedView]) -> ViewChoice:
    """The single view with the smallest bound of the tip's error towards the canal."""
    return min((_choice(screw, vertebra, (v,), v.both) for v in views), key=lambda c: c.bound_mm)


def best_pair(
    screw: Screw, vertebra: Vertebra, views: Sequence[PredictedView], arm_deg: float, arm_mm: float
) -> ViewChoice | None:
    """The two views, apart enough, after which that bound is smallest; None where no two are."""
    tip, towards = np.asarray(screw.tip_ct, np.float64), towards_canal_ct(screw, vertebra)
    best, lowest = None, np.inf
    for first in views:
        for second in views:
            if beam_angle_deg(first, second) < SETTINGS.apart_deg:
                continue
            found = together(first, second, arm_deg, arm_mm)
            # Equal errors towards the canal are told apart by those in the other directions.
            bound = sigma_mm(found.stated, first.centre_ct, tip, towards)
            bound += SETTINGS.other_weight * float(np.sqrt(np.trace(found.stated[3:, 3:])))
            if bound < lowest:
                best, lowest = ((first, second), found), bound
    return None if best is None else _choice(screw, vertebra, *best)


def at_views(
    screw: Screw, vertebra: Vertebra, views: tuple[PredictedView, ...], arm_deg: float, arm_mm: float
) -> ViewChoice:
    """One view or two that somebody else has chosen."""
    return _choice(
        screw, vertebra, views, views[0].both if len(views) == 1 else together(views[0], views[1], arm_deg, arm_mm)
    )


def _choice(screw: Screw, vertebra: Vertebra, views: tuple[PredictedView, ...], covariances: Covariances) -> ViewChoice:
    tip, centre = np.asarray(screw.tip_ct, np.float64), views[0].centre_ct
    towards = towards_canal_ct(screw, vertebra)
    other = _unit(np.cross(tip - np.asarray(screw.entry_ct), towards))
    bounds = [
        NORMAL_95 * sigma_mm(covariances.stated, centre, tip, np.cos(t) * towards + np.sin(t) * other)
        for t in np.linspace(0, np.pi, 13)[:-1]
    ]
    return ViewChoice(
        tuple((v.orbital_deg, v.angular_deg) for v in views),
        NORMAL_95 * sigma_mm(covariances.expected, centre, tip, towards), bounds[0], max(bounds), covariances,
    )  # fmt: skip


def _unit(v: Float) -> Float:
    return v / np.linalg.norm(v)


def no_breach(screw: Screw, vertebra: Vertebra, covariance_ct: Float, centre_ct: Float) -> float:
    """Probability that a screw guided with an error of this covariance stays in the bone, 0 to 1.

    Poses are drawn from the covariance, and the screw is moved as each of them would have it. What the hand that
    drives the screw adds is not in it.

    Parameters
    ----------
    screw : Screw
    vertebra : Vertebra
    covariance_ct : ndarray, shape (6, 6)
        Of (rotation, translation of `centre_ct`), rad and mm, CT axes.
    centre_ct : ndarray, shape (3,)
        The point that it is about, LPS mm.
    """
    points = _counted_ct(screw, vertebra)
    if not len(points):
        return 0.0
    values, vectors = np.linalg.eigh(covariance_ct)
    root = vectors * np.sqrt(np.maximum(values, 0))
    half = np.random.default_rng(SETTINGS.seed).standard_normal((SETTINGS.samples // 2, 6))
    # Each pose with its opposite, so that the mean is exactly that of the plan.
    drawn = np.vstack([half, -half]) @ root.T
    arm = points - centre_ct
    moved = points[None] + np.cross(drawn[:, None, :3], arm[None]) + drawn[:, None, 3:]
    depth = -vertebra.surfaces.outside_mm(moved.reshape(-1, 3)).reshape(moved.shape[:2])
    return float((depth.min(axis=1) >= screw.diameter_mm / 2).mean())


def _counted_ct(screw: Screw, vertebra: Vertebra) -> Float:
    """Points of a screw's axis from the pedicle's beginning to its round tip, LPS mm."""
    entry, tip = np.asarray(screw.entry_ct, np.float64), np.asarray(screw.tip_ct, np.float64)
    length = float(np.linalg.norm(tip - entry))
    s = np.arange(0, max(length - screw.diameter_mm / 2, 0) + 1e-9, SETTINGS.step_mm)
    points = entry + s[:, None] * (tip - entry) / length
    pedicle = vertebra.pedicles.get(screw.side)
    if pedicle is None:
        return points
    return points[vertebra.canal.from_ct(points)[:, 1] >= pedicle.begins_mm]


def safest(
    screw: Screw, vertebra: Vertebra, covariance_ct: Float, centre_ct: Float, catalogue: Catalogue
) -> ScrewProposal:
    """The screw of the same diameter whose walls are farthest away in standard deviations of the guidance.

    Along each candidate axis, the depth that is left beside the screw is divided by the standard deviation of the
    error towards the nearest wall; the smallest quotient is maximised. It is the first-order probability of no breach.

    Raises
    ------
    ValueError
        The vertebra has no pedicle there.
    """
    if screw.side not in vertebra.pedicles:
        raise ValueError(vertebra.missing[screw.side])
    search = Search(vertebra.bone, vertebra.surfaces, vertebra.canal, screw.side)
    radius = screw.diameter_mm / 2

    def cost(x: Float) -> float:
        points_ct = vertebra.canal.to_ct(search.axis(x).points(search.fronts))
        out = np.empty((len(points_ct), 4))
        bone = vertebra.bone
        sample_distances(bone.hundredths, bone.field_origin_ct, bone.field_spacing_mm, points_ct, out)
        wall = out[:, 1:]
        rows = np.hstack([np.cross(points_ct - centre_ct, wall), wall])
        sigma = np.sqrt(np.maximum(np.einsum("ij,jk,ik->i", rows, covariance_ct, rows), 1e-6))
        margins = (-out[:, 0] - radius) / sigma
        return -float(margins.min()) - 0.01 * float(np.minimum(margins, 10).mean()) + 5 * search.penalty(x)

    of_pedicle = search.numbers(vertebra.pedicles[screw.side].axis)
    starts = [of_pedicle, search.numbers(_axis_of(screw, vertebra, search.begins_mm))]
    x = min((search.refined(start, cost) for start in starts), key=cost)
    same = catalogue.model_copy(update={"diameters_mm": (screw.diameter_mm,)})
    return fitted(vertebra, screw.side, search.axis(x), same)


def _axis_of(screw: Screw, vertebra: Vertebra, begins_mm: float) -> Axis:
    entry, tip = vertebra.canal.from_ct(np.array([screw.entry_ct, screw.tip_ct], np.float64))
    along = _unit(tip - entry)
    if along[1] < 0.2:  # it runs across the vertebra, where its crossing of the plane is far away
        return vertebra.pedicles[screw.side].axis
    return Axis(entry + along * (begins_mm - entry[1]) / along[1], along)
