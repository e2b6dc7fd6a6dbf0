"""`fluoronav plan level`."""

from __future__ import annotations

import argparse
import getpass
from pathlib import Path
from typing import Any

from fluoronav.cli.arguments import add_verb
from fluoronav.cli.plan_engines import levels
from fluoronav.cli.plan_options import add_json_option, told
from fluoronav.cli.reporting import missing_extra


def add_verbs(family: argparse._SubParsersAction) -> None:
    """Adds the verb to its family."""
    verb = add_verb(
        family,
        "level",
        "answer which level a vertebra is: all vertebrae, with their ribs and screws, move up or down the spine "
        "together, as one revision that can be taken back; voxels stay where they are",
        _level,
        "fluoronav plan level cases/P2KQX7",
        "fluoronav plan level cases/P2KQX7 --level-of T12=L1",
        "fluoronav plan level cases/P2KQX7 --back",
    )
    verb.add_argument("case", type=Path, metavar="CASE", help="folder of a case with a segmentation")
    what = verb.add_mutually_exclusive_group()
    what.add_argument(
        "--level-of", type=levels, metavar="DRAFTED=TRUE",
        help="what is drafted as T12 is L1 (T12=L1), or it is right (T12=T12); without it, open questions are printed",
    )  # fmt: skip
    what.add_argument("--back", action="store_true", help="take the last move of the levels back")
    add_json_option(verb, "revision, notes and open questions")


def _level(options: argparse.Namespace) -> int:
    try:
        from fluoronav.planning.levels import LevelError, move_back, move_levels, steps_between
        from fluoronav.planning.questions import answer, ask_again, read_questions
        from fluoronav.planning.revisions import Revisions
        from fluoronav.site.case_trail import CaseTrail
        from fluoronav.workspace.published import publish
    except ImportError as error:
        raise missing_extra("planning", error) from error
    folder, user = options.case, getpass.getuser()
    newest = Revisions(folder).newest()
    if newest is None:
        raise LevelError(f"{folder}: has no segmentation: run `fluoronav plan segment` first")
    moved = None
    what: dict[str, Any] = {"what": "moved back"}
    if options.back:
        moved = move_back(folder, author=user, parent=newest.number)
        ask_again(folder, "level")
    elif options.level_of is not None:
        by = steps_between(*options.level_of)
        moved = move_levels(folder, by, author=user, parent=newest.number) if by else None
        said = "{} is {}".format(*options.level_of)
        asked = answer(folder, "level", said, user)
        what = {"what": "moved" if by else "confirmed", "by": by, "said": said, "questions": asked}
    lines = [f"NOTE {note}" for note in (moved.notes if moved else ())]
    revision = moved.revision if moved else newest
    if options.back or options.level_of is not None:
        if moved is not None:
            publish(folder)
        plan = moved.plan.revision if moved and moved.plan else 0
        CaseTrail(folder).add("levels", user=user, revision=revision.number, plan=plan, **what)
        lines.append(f"{what['what']}: revision {revision.number}" + (f", plan {plan}, a draft" if plan else ""))
    questions = read_questions(folder)["questions"]
    lines += [f"QUESTION {q['text']} {' or '.join(q['choices'])}? ({q['evidence']})" for q in questions]
    result = {"revision": revision.number, "notes": list(moved.notes) if moved else [], "questions": questions}
    told(options, "\n".join(lines) or "no question is open", result)
    return 0
