"""The planned C-arm views of a briefing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fluoronav.planning.plan.planned import Planned, ends
from fluoronav.planning.plan.schema import Path, Plan, Screw, View
from fluoronav.planning.plan.source import Source
from fluoronav.planning.views.arm import SPACE, obstacle
from fluoronav.reports.arm_words import arm_words, joint_words
from fluoronav.reports.briefing.content import ViewCard, Views, ViewUse
from fluoronav.reports.briefing.instruments import in_order, item_name
from fluoronav.reports.briefing.xray import Shaft, XrayPictures

_AT_LIMIT_DEG = 5.0  # from the end of a joint's range on, it is said; chosen
_NONE = (
    "The plan has no C-arm views. Compute them with `fluoronav plan views CASE --write` or with Views for guidance in "
    "the workspace, then print this again."
)
_NOTHING = "The plan has neither a screw nor a path to guide."


@dataclass(frozen=True)
class _Group:
    """What is seen in the same field: the items of a vertebra, or one path."""

    title: str
    items: tuple[Screw | Path, ...]


def views_of(planned: Planned, source: Source, progress: Callable[[str], object]) -> Views:
    """The views, each with its picture.

    Views of one vertebra with the same angles share a card.

    Parameters
    ----------
    planned : Planned
    source : Source
        The same case's volumes.
    progress : callable
        Takes what is being done.
    """
    plan = planned.plan
    if not any(isinstance(i, Screw | Path) for i in plan.items):
        return Views((), _NOTHING)
    views = [i for i in plan.items if isinstance(i, View)]
    if not views:
        return Views((), _NONE)
    cards: list[ViewCard] = []
    for group in _groups(plan):
        cards += _cards(group, views, planned, source, progress)
    return Views(tuple(cards), _note(plan, views))


def _groups(plan: Plan) -> list[_Group]:
    screws = in_order(plan)
    levels = dict.fromkeys(s.level for s in screws)
    out = [_Group(level, tuple(s for s in screws if s.level == level)) for level in levels]
    return out + [_Group(i.name, (i,)) for i in plan.items if isinstance(i, Path)]


def _cards(
    group: _Group, views: Sequence[View], planned: Planned, source: Source, progress: Callable[[str], object]
) -> list[ViewCard]:
    by_item = {i.id: [v for v in views if v.item == i.id] for i in group.items}
    at = dict.fromkeys((v.orbital_deg, v.angular_deg) for of_item in by_item.values() for v in reversed(of_item))
    if not at:
        return []
    reach = planned.case.prior.source_to_isocentre_mm
    pictures = _pictures(group, source, reach)
    out = []
    for orbital, angular in at:
        progress(f"{group.title}: {joint_words(orbital, angular)}")
        seen = [
            (i, v) for i in group.items for v in by_item[i.id] if (v.orbital_deg, v.angular_deg) == (orbital, angular)
        ]
        blocked = obstacle(orbital, angular, reach)
        out.append(
            ViewCard(
                title=" + ".join(dict.fromkeys(item_name(i) for i, _ in seen)),
                words=arm_words(orbital, angular),
                joints=joint_words(orbital, angular),
                orbital_deg=orbital,
                angular_deg=angular,
                uses=tuple(_use(i, v, by_item[i.id]) for i, v in seen),
                arm=_arm(orbital, angular, blocked),
                is_free=not blocked,
                picture=pictures.jpeg(orbital, angular),
            )
        )
    return out


def _pictures(group: _Group, source: Source, reach_mm: float) -> XrayPictures:
    levels = {i.level for i in group.items if isinstance(i, Screw)}
    bones = [label for level, label in source.vertebrae.items() if level in levels]
    shafts = [Shaft(_short(i), *ends(i), i.diameter_mm) for i in group.items]
    around = source.widest_ct() if source.file.surroundings is not None else None
    return XrayPictures(source.ct, around, source.labels, bones, shafts, reach_mm)


def _short(item: Screw | Path) -> str:
    return f"{item.level} {item.side[0].upper()}" if isinstance(item, Screw) else item.name


def _use(item: Screw | Path, view: View, of_item: Sequence[View]) -> ViewUse:
    """The view's turn, and the predicted error after it.

    Of two views the first is the one that is guided in; the arm goes to the other one before
    (:class:`fluoronav.planning.views.choice.ViewChoice`).
    """
    name = item_name(item)
    if view is not of_item[0]:
        there = arm_words(of_item[0].orbital_deg, of_item[0].angular_deg)
        return ViewUse(name, "1. Expose here first", f"then guide at {there}")
    turn = "Guide here" if len(of_item) < 2 else "2. Guide here"
    towards = "towards the spinal canal" if isinstance(item, Screw) else "in the direction that matters"
    bound = f", guidance states {view.bound_mm:.1f} mm" if view.bound_mm is not None else ""
    text = f"tip error {towards}: {view.error_mm:.1f} mm expected{bound} (95 %)"
    return ViewUse(name, turn, text, view.error_mm, view.bound_mm)


def _arm(orbital_deg: float, angular_deg: float, blocked: str) -> str:
    if blocked:
        return f"NOT REACHED: {blocked}"
    near = [
        f"{what} {value:g}° is {_limit(value, limits)}"
        for what, value, limits in (
            ("orbital", orbital_deg, SPACE.orbital_deg), ("angular", angular_deg, SPACE.angular_deg),
        )
        if min(value - limits[0], limits[1] - value) < _AT_LIMIT_DEG
    ]  # fmt: skip
    return "; ".join(["clear of table and patient", *near])


def _limit(value: float, limits: tuple[float, float]) -> str:
    left = min(value - limits[0], limits[1] - value)
    return "at the arm's limit" if left <= 0 else f"{left:g}° from the arm's limit"


def _note(plan: Plan, views: Sequence[View]) -> str:
    """Screws without views, and those that were changed after their views were computed, by the trail's numbers."""
    said = []
    items = [i for i in plan.items if isinstance(i, Screw | Path)]
    if missing := [item_name(i) for i in items if isinstance(i, Screw) and not any(v.item == i.id for v in views)]:
        said.append(f"Without views: {', '.join(missing)}.")
    older = [item_name(i) for i in items if any(v.item == i.id and _before(v.audit, i.audit) for v in views)]
    if older:
        said.append(f"Changed after their views were computed: {', '.join(older)}.")
    return f"{' '.join(said)} Compute the views again: `fluoronav plan views CASE --write`." if said else ""


def _before(view: str, item: str) -> bool:
    return view.isdigit() and item.isdigit() and int(view) < int(item)
