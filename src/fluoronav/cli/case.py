"""`fluoronav case build`."""

from __future__ import annotations

import argparse

from fluoronav.cli.arguments import CASE_HELP, add_family, add_verb
from fluoronav.cli.reporting import say


def add_verbs(verbs: argparse._SubParsersAction) -> None:
    case = add_family(verbs, "case", "check and prepare case files", "fluoronav case build embedded")
    build = add_verb(
        case,
        "build",
        "load a case, check it, cache its distance fields, and print what it holds",
        _build,
        "fluoronav case build embedded",
        "fluoronav case build cases/mine/case.yaml",
    )
    build.add_argument("case", help=CASE_HELP)


def _build(options: argparse.Namespace) -> None:
    from fluoronav.case import load_case

    case = load_case(options.case, progress=lambda text: say(f"  {text}"))
    size, spacing = case.ct.image.GetSize(), case.ct.image.GetSpacing()
    print(f"case {case.id}")
    print(f"CT {size[0]} x {size[1]} x {size[2]} voxels of {spacing[0]:.3g} x {spacing[1]:.3g} x {spacing[2]:.3g} mm")
    for s in case.structures:
        limits = f"caution {s.caution_mm:g} mm, danger {s.danger_mm:g} mm" if s.caution_mm else "no alert"
        print(f"structure {s.name}: label {s.label}, {limits}")
    for t in case.plan:
        print(f"trajectory {t.name}: from {t.entry_ct} to {t.target_ct}")
    for warning in case.warnings:
        print(f"WARNING {warning}")
