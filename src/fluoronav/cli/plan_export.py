"""`fluoronav plan export` and `plan simulate`."""

from __future__ import annotations

import argparse
import json
from datetime import datetime
from pathlib import Path
from typing import Any

from fluoronav.cli.arguments import add_verb, host_and_port
from fluoronav.cli.plan_options import add_json_option, add_plan, plan_and_case, told
from fluoronav.cli.reporting import missing_extra, say


def add_verbs(family: argparse._SubParsersAction) -> None:
    """Adds the verbs to their family."""
    _add_simulate(family)
    _add_export(family)


def _add_simulate(family: argparse._SubParsersAction) -> None:
    verb = add_verb(
        family,
        "simulate",
        "carry out the cuts, moves, resections and implants of a plan on its bones: volumes (cm3), angles (degrees), "
        "sizes of implants with overhang (mm)",
        _simulate,
        "fluoronav plan simulate cases/P2KQX7 --json",
        "fluoronav plan simulate cases/P2KQX7/plan.yaml --out out/pieces --frame lps --png out/pieces.png",
    )
    _add_source(verb)
    verb.add_argument("--out", type=Path, metavar="FOLDER", help="write the bodies as STL here; needs --frame")
    _add_frame(verb)
    verb.add_argument(
        "--png", type=Path, metavar="FILE", help="draw the bodies here, from behind, from the left and from the feet"
    )
    add_json_option(verb, "the figures")


def _add_export(family: argparse._SubParsersAction) -> None:
    verb = add_verb(
        family,
        "export",
        "hand a plan on: a case for the stream (an approved plan only), STL or 3MF in mm, 3D Slicer, DICOM objects, "
        "OpenIGTLink",
        _export,
        "fluoronav plan export cases/P2KQX7 --to case --instruments room2.yaml --out or/P2KQX7",
        "fluoronav plan export cases/P2KQX7 --to stl --frame lps --guide T8 --out out/print",
    )
    verb.add_argument("--to", required=True, choices=tuple(_WRITERS), help="what to write")
    verb.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="folder to write into")
    _add_source(verb)
    _add_frame(verb)
    verb.add_argument(
        "--structure", action="append", default=[], metavar="NAME",
        help="only this structure as a surface; may be repeated; `none` for none",
    )  # fmt: skip
    verb.add_argument(
        "--guide", metavar="LEVEL", help="also a drill guide for the screws of this level (stl, 3mf); an example"
    )
    case = verb.add_argument_group("case")
    case.add_argument(
        "--instruments", type=Path, metavar="FILE",
        help="YAML with the room's `tools` (mm) and `tracker`, as in case.yaml; by default those of the planned case",
    )  # fmt: skip
    dicom = verb.add_argument_group("dicom")
    dicom.add_argument(
        "--source", type=Path, metavar="PATH", help="the CT as DICOM, where the case names another format"
    )
    dicom.add_argument("--organization", default="", metavar="NAME", help="of the person who approved the plan")
    dicom.add_argument("--device", default="none", metavar="NAME", help="name of this installation, as serial number")
    igtl = verb.add_argument_group("igtl")
    igtl.add_argument(
        "--send", type=host_and_port, metavar="HOST:PORT", help="also send the messages to this OpenIGTLink server"
    )
    add_json_option(verb, "the figures")


def _add_source(verb: argparse.ArgumentParser) -> None:
    add_plan(verb)
    verb.add_argument(
        "--implants", type=Path, metavar="FILE", help="a catalogue of implants besides the demonstration's"
    )


def _add_frame(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--frame", choices=("lps", "ras"), help="axes of STL and 3MF; must be said: programs differ")


def _simulate(options: argparse.Namespace) -> None:
    try:
        from fluoronav.planning.meshes.drawing import drawn
        from fluoronav.planning.meshes.parts import write_stl
        from fluoronav.planning.simulation.simulate import context_of
    except ImportError as error:
        raise missing_extra("planning", error) from error
    if options.out is not None:
        _frame(options)
    planned, simulated = _simulated(options)
    result = simulated.report
    if options.out is not None:
        result["files"] = [p.name for p in write_stl(simulated.parts, options.out, options.frame)]
    if options.png is not None:
        import cv2

        parts = [*context_of(planned, simulated.parts), *simulated.parts]
        if not parts:
            raise ValueError(f"{options.plan}: has no cut, resection or implant; there is nothing to draw")
        options.png.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(options.png), drawn(parts, f"{planned.plan.case}, revision {planned.plan.revision}"))
    told(options, _simulation_table(result), result)


def _simulated(options: argparse.Namespace) -> tuple[Any, Any]:
    """The plan, and its simulated surgery."""
    from fluoronav.planning.plan.planned import read_planned
    from fluoronav.planning.simulation.catalogue import read_catalogue
    from fluoronav.planning.simulation.simulate import simulate

    planned = read_planned(*plan_and_case(options))
    planned.check_hashes()
    return planned, simulate(planned, read_catalogue(options.implants), say)


def _export(options: argparse.Namespace) -> None:
    try:
        from fluoronav.planning.plan.planned import read_planned

        planned = read_planned(*plan_and_case(options))
        table, result = _WRITERS[options.to](options, planned)
    except ImportError as error:
        raise missing_extra("pacs" if options.to == "dicom" else "planning", error) from error
    result = {"to": options.to, "plan": planned.digest, "state": planned.plan.state, **result}
    if planned.plan.state != "approved":
        say(f"WARNING: the plan is {planned.plan.state}, not approved")
    told(options, table, result)


def _to_case(options: argparse.Namespace, planned: Any) -> tuple[str, dict[str, Any]]:
    from fluoronav.case.instruments import read_instruments
    from fluoronav.planning.export.stream_case import write_stream_case

    room = read_instruments(options.instruments) if options.instruments is not None else None
    made = write_stream_case(planned, options.out, say, room)
    lines = [f"written: {made['file']}", f"trajectories: {', '.join(made['trajectories'])}"]
    lines.append(f"tools: {', '.join(made['tools']) or 'none'}; tracker: {made['tracker'] or 'none'}")
    lines.append(f"alarms: {', '.join(made['alarms']) or 'none'}")
    return "\n".join([*lines, *(f"WARNING {w}" for w in made["warnings"])]), made


def _to_mesh(options: argparse.Namespace, planned: Any) -> tuple[str, dict[str, Any]]:
    from fluoronav.planning.export.solids import table
    from fluoronav.planning.meshes.of_mask import LIMITS
    from fluoronav.planning.meshes.parts import write_3mf, write_stl

    frame = _frame(options)
    planned.check_hashes()
    parts, more = _bodies(options, planned), {}
    if options.guide:
        parts, more = _with_guide(options, planned, parts)
    if options.to == "3mf":
        files = [write_3mf(parts, options.out / f"plan.{frame}.3mf", frame)]
    else:
        files = write_stl(parts, options.out, frame)
    head = (
        f"{len(files)} files, mm, {frame.upper()}; decimation moved no surface by more than {LIMITS.decimation_mm:g} mm"
    )
    result = {
        "frame": frame, "units": "mm", "decimation_mm": LIMITS.decimation_mm, "files": [f.name for f in files],
        "parts": [p.report() for p in parts], **more,
    }  # fmt: skip
    return f"{head}\n{table(parts)}", result


def _to_slicer(options: argparse.Namespace, planned: Any) -> tuple[str, dict[str, Any]]:
    from fluoronav.planning.export.slicer import write_slicer

    planned.check_hashes()
    made = write_slicer(planned, _bodies(options, planned, structures=False), options.out, say)
    count = f"{len(made['markups'])} markups, {len(made['models'])} models and the structures"
    return f"written: {options.out}: {count}; open {options.out / made['scene']} in Slicer", made


def _to_dicom(options: argparse.Namespace, planned: Any) -> tuple[str, dict[str, Any]]:
    from fluoronav.dicom.objects import Approval, Producer, Provenance
    from fluoronav.planning.export.pacs_objects import approved_at, write_dicom

    planned.check_hashes()
    approval = None
    if planned.plan.state == "approved":
        from fluoronav.planning.export.stream_case import check_approved

        check_approved(planned)
        person = planned.plan.approved_by or planned.plan.author
        if person:
            approval = Approval(person, options.organization, approved_at(planned))
    provenance = Provenance(Producer(serial=options.device), datetime.now().astimezone(), approval)
    made = write_dicom(planned, _bodies(options, planned), options.out, provenance, options.source, say)
    files = made["files"]
    what = [n for n in ("seg", "sr") if n in files] + [f"{len(files['stl'])} surfaces"]
    return f"written: {options.out}: {', '.join(what)}, {'draft' if made['draft'] else 'approved'}", made


def _to_igtl(options: argparse.Namespace, planned: Any) -> tuple[str, dict[str, Any]]:
    from fluoronav.durable import written
    from fluoronav.openigtlink.plan_messages import packed, plan_messages, send

    planned.check_hashes()
    messages = plan_messages(planned, _bodies(options, planned))
    path = options.out / "plan.igtl"
    written(path, packed(messages))
    result: dict[str, Any] = {"file": path.name, "messages": [{"type": m.kind, "name": m.name} for m in messages]}
    text = f"written: {path}: {len(messages)} messages"
    if options.send is not None:
        result["sent_bytes"] = send(messages, *options.send)
        text += f"; sent to {options.send[0]}:{options.send[1]}"
    return text, result


def _bodies(options: argparse.Namespace, planned: Any, *, structures: bool = True) -> list[Any]:
    """Structures, screws, paths, and what the simulated surgery makes."""
    from fluoronav.planning.export.solids import instrument_parts, structure_parts
    from fluoronav.planning.simulation.catalogue import read_catalogue
    from fluoronav.planning.simulation.simulate import simulate

    parts = structure_parts(planned, options.structure, say) if structures and options.structure != ["none"] else []
    return [*parts, *instrument_parts(planned), *simulate(planned, read_catalogue(options.implants), say).parts]


def _with_guide(options: argparse.Namespace, planned: Any, parts: list[Any]) -> tuple[list[Any], dict[str, Any]]:
    from fluoronav.planning.export.guide import drill_guide
    from fluoronav.planning.meshes.of_mask import mask_of
    from fluoronav.planning.meshes.parts import part
    from fluoronav.planning.plan.schema import Screw

    level = options.guide.strip().upper()
    vertebra = planned.structure(level)
    screws = [i for i in planned.plan.items if isinstance(i, Screw) and i.level.upper() == level]
    say(f"drill guide for {level}")
    made = drill_guide(mask_of(planned.label_image, vertebra.label, vertebra.name), screws, level)
    say(f"drill guide: {json.dumps(made.report)}")
    return [*parts, part(f"guide {level}", "guide", made.body)], {"guide": made.report}


def _frame(options: argparse.Namespace) -> Any:
    if options.frame is None:
        raise ValueError(
            "say --frame lps or --frame ras: a surface in the wrong frame is turned by half a circle. 3D Slicer and "
            "DICOM take STL as LPS; some printers' and planning programs want RAS"
        )
    return options.frame


def _simulation_table(result: dict[str, Any]) -> str:
    lines = []
    for c in result["cuts"]:
        lines.append(
            f"{c['structure']}: {c['volume_cm3']:.3f} cm3, kerf {c['kerf_cm3']:.3f}, "
            f"volume kept to {c['conservation']:+.1e}"
        )
        for p in c["pieces"]:
            state = (
                "taken out" if p["taken_out"] else "moved by " + ", ".join(p["moved_by"]) if p["moved_by"] else "stays"
            )
            lines.append(f"  {p['name']:20s} {p['volume_cm3']:9.3f} cm3  {state}")
        lines += [
            f"  wedge {w['from']} to {w['to']}: {w['angle_deg']:.2f} deg, {w['volume_cm3']:.3f} cm3"
            for w in c["wedges"]
        ]
        lines += [
            f"  move {m['id']}: {m['rotation_deg']:.2f} deg, {m['shift_at_cut_mm']:.2f} mm at the cut"
            for m in c["moves"]
        ]
    for r in result["resections"]:
        lines.append(f"{r['lesion']} with {r['margin_mm']:g} mm: {r['taken_out_cm3']:.3f} cm3 taken out")
        lines += [f"  through {t['structure']}: {t['volume_cm3']:.3f} cm3" for t in r["cuts_through"]]
        lines += [
            f"  left of {b['structure']}: {', '.join(f'{v:.3f}' for v in b['pieces_cm3'])} cm3" for b in r["bone_left"]
        ]
    for i in result["implants"]:
        lines.append(f"{i['id']}: {i['family']} {i['size']}, suggested {i.get('suggested', '-')}")
        for f in i.get("sizes", []):
            over = ", ".join(f"{side} {mm:.1f}" for side, mm in f["overhang_mm"].items())
            verdict = "" if f["fits"] else "  TOO LARGE"
            lines.append(f"  {f['size']:8s} overhang mm: {over}; covers {100 * f['covered']:.0f} %{verdict}")
    lines += [f"WARNING {w}" for w in result["warnings"]]
    return "\n".join(lines or ["the plan has no cut, resection or implant"])


_WRITERS = {
    "case": _to_case, "stl": _to_mesh, "3mf": _to_mesh, "slicer": _to_slicer, "dicom": _to_dicom, "igtl": _to_igtl,
}  # fmt: skip
