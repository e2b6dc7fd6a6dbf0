"""Views for all screws of a plan."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fluoronav.geometry import Camera
from fluoronav.planning.plan.schema import Item, Plan, Screw, View
from fluoronav.planning.screws.bone import VertebraError
from fluoronav.planning.screws.catalogue import Catalogue
from fluoronav.planning.screws.spine import Spine
from fluoronav.planning.screws.vertebra import Vertebra
from fluoronav.planning.views.arm import SPACE, angles, obstacle
from fluoronav.planning.views.choice import ViewChoice, best_pair, best_view, no_breach, safest
from fluoronav.planning.views.prediction import EXPOSURE, PredictedView, ViewPredictor

Float = NDArray[np.float64]


@dataclass(frozen=True)
class ScrewViews:
    """What is said of one screw.

    Attributes
    ----------
    screw : Screw
    one, pair : ViewChoice or None
        None where there is no such view.
    no_breach_one, no_breach_pair : float or None
        Probability that it stays in the bone with the error that the guidance states at these views, 0 to 1.
    chosen : Screw or None
        The screw of the same diameter with the highest probability, where one was asked for and is better.
    no_breach_chosen : float or None
    """

    screw: Screw
    one: ViewChoice | None
    pair: ViewChoice | None
    no_breach_one: float | None
    no_breach_pair: float | None
    chosen: Screw | None = None
    no_breach_chosen: float | None = None

    @property
    def best(self) -> ViewChoice | None:
        """The pair where it is better than one view."""
        if self.pair is None or (self.one is not None and self.one.bound_mm <= self.pair.bound_mm):
            return self.one
        return self.pair


@dataclass(frozen=True)
class PlanViews:
    """Views of a plan.

    Attributes
    ----------
    screws : tuple of ScrewViews
    refused : dict
        Number of angles by what they would collide with.
    notes : tuple of str
    """

    screws: tuple[ScrewViews, ...]
    refused: dict[str, int]
    notes: tuple[str, ...]

    def result(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "screws": [_as_json(s) for s in self.screws],
            "refused_angles": self.refused,
            "notes": list(self.notes),
        }


def _as_json(s: ScrewViews) -> dict[str, Any]:
    def choice(c: ViewChoice | None, probability: float | None) -> dict[str, Any] | None:
        if c is None:
            return None
        views = [{"orbital_deg": o, "angular_deg": a} for o, a in c.views]
        return {
            "views": views, "error_mm": round(c.error_mm, 3), "bound_mm": round(c.bound_mm, 3),
            "across_mm": round(c.across_mm, 3),
            "no_breach": probability,
        }  # fmt: skip

    chosen = None
    if s.chosen is not None:
        chosen = {**s.chosen.model_dump(mode="json"), "no_breach": s.no_breach_chosen}
    return {
        "id": s.screw.id, "level": s.screw.level, "side": s.screw.side, "clearance_mm": s.screw.clearance_mm,
        "one": choice(s.one, s.no_breach_one), "pair": choice(s.pair, s.no_breach_pair), "chosen": chosen,
    }  # fmt: skip


def plan_views(
    plan: Plan, case, spine: Spine, camera: Camera, *, step_deg: float, photons: float, choose: Catalogue | None,
    progress: Callable[[str], object] = lambda _: None,
) -> PlanViews:  # fmt: skip
    """Finds views for the screws of a plan.

    Parameters
    ----------
    plan : Plan
    case : fluoronav.case.Case
        The stream's: its CT, its bones, its C-arm's distance.
    spine : Spine
        Of its labels.
    camera : Camera
    step_deg : float
        Of the grid of angles.
    photons : float
        Dose, mean detected photons per pixel.
    choose : Catalogue or None
        Where given, a trajectory with the highest probability of no breach is looked for, in its sizes.

    Raises
    ------
    ValueError
        The plan has no screw.
    """
    screws = [i for i in plan.items if isinstance(i, Screw)]
    if not screws:
        raise ValueError("the plan has no screws: run `fluoronav plan screws` first")
    reach = case.prior.source_to_isocentre_mm
    allowed, refused = _allowed(step_deg, reach)
    notes: list[str] = []
    out: list[ScrewViews] = []
    for level in dict.fromkeys(s.level for s in screws):
        of_level = [s for s in screws if s.level == level]
        try:
            vertebra = spine.vertebra(level)
        except VertebraError as error:
            notes.append(str(error))
            continue
        centre = np.mean([[s.entry_ct, s.tip_ct] for s in of_level], axis=(0, 1))
        predictor = ViewPredictor(case, camera, centre, replace(EXPOSURE, photons=photons))
        views: list[PredictedView] = []
        for n, (orbital, angular) in enumerate(allowed):
            if n % 20 == 0:
                progress(f"{level}: view {n + 1} of {len(allowed)}")
            view = predictor.at(orbital, angular, centre, reach)
            if view is not None:
                views.append(view)
        if not views:
            notes.append(f"{level}: no view shows enough of the bones to register")
            continue
        out += [_of_screw(s, vertebra, views, camera, centre, choose) for s in of_level]
    return PlanViews(tuple(out), refused, tuple(notes))


def _allowed(step_deg: float, reach_mm: float) -> tuple[list[tuple[float, float]], dict[str, int]]:
    allowed, refused = [], {}
    for orbital, angular in angles(step_deg, SPACE):
        why = obstacle(orbital, angular, reach_mm, SPACE)
        if why:
            refused[why] = refused.get(why, 0) + 1
        else:
            allowed.append((orbital, angular))
    if not allowed:
        raise ValueError(f"the arm reaches no view on a grid of {step_deg:g} degrees: {refused}")
    return allowed, refused


def _of_screw(
    screw: Screw, vertebra: Vertebra, views: Sequence[PredictedView], camera: Camera, centre: Float,
    choose: Catalogue | None,
) -> ScrewViews:  # fmt: skip
    one = best_view(screw, vertebra, views)
    pair = best_pair(screw, vertebra, views, camera.arm_deg, camera.arm_mm)
    alone = no_breach(screw, vertebra, one.covariances.stated, centre)
    both = no_breach(screw, vertebra, pair.covariances.stated, centre) if pair else None
    found = ScrewViews(screw, one, pair, alone, both)
    if choose is None or found.best is None:
        return found
    covariance = found.best.covariances.stated
    other = safest(screw, vertebra, covariance, centre, choose)
    if not other.fits:
        return found
    changed = screw.model_copy(
        update={k: v for k, v in asdict(other).items() if k in Screw.model_fields and v is not None}
    )
    now, before = (no_breach(s, vertebra, covariance, centre) for s in (changed, screw))
    return replace(found, chosen=changed, no_breach_chosen=now) if now > before else found


def with_views(plan: Plan, found: PlanViews, audit: str = "") -> tuple[Plan, tuple[str, ...]]:
    """A plan with the views found, and with the trajectories chosen in place of proposed ones.

    Screws that a person moved or drew stay as they are.

    Returns
    -------
    plan : Plan
        A draft.
    kept : tuple of str
        Ids of a person's screws for which a better trajectory was found.
    """
    by_id = {s.screw.id: s for s in found.screws}
    items: list[Item] = []
    kept = []
    for item in plan.items:
        if isinstance(item, View) and item.origin == "proposed" and item.item in by_id:
            continue
        chosen = by_id[item.id].chosen if isinstance(item, Screw) and item.id in by_id else None
        if chosen is not None and item.origin != "proposed":
            kept.append(item.id)
            chosen = None
        items.append(item if chosen is None else chosen.model_copy(update={"audit": audit}))
    for s in found.screws:
        if s.best is None:
            continue
        for k, (orbital, angular) in enumerate(s.best.views):
            items.append(
                View(
                    id=f"{s.screw.id}-view-{k + 1}",
                    origin="proposed",
                    audit=audit,
                    item=s.screw.id,
                    orbital_deg=orbital,
                    angular_deg=angular,
                    error_mm=round(s.best.error_mm, 3), bound_mm=round(s.best.bound_mm, 3),
                )
            )  # fmt: skip
    changed = {"items": tuple(items), "state": "draft", "reviewed_by": "", "approved_by": ""}
    return plan.model_copy(update=changed), tuple(kept)
