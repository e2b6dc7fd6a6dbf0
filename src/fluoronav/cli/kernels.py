"""`fluoronav kernels build|status`."""

from __future__ import annotations

import argparse
import time

from fluoronav.cli.arguments import add_family, add_verb, count
from fluoronav.cli.reporting import say

_TARGETS = ("x86-64-v4", "x86-64-v3", "x86-64-v2")


def add_verbs(verbs: argparse._SubParsersAction) -> None:
    family = add_family(
        verbs, "kernels", "compile the CPU's kernels ahead of time, and say what is compiled", "fluoronav kernels build"
    )
    build = add_verb(
        family,
        "build",
        "compile every kernel that is missing, on all processors, into the cache, so that no start compiles (about "
        "25 s on two cores, 1 s where all are there)",
        _build,
        "fluoronav kernels build",
        "fluoronav kernels build --target all --for-all-users",
    )
    status = add_verb(
        family,
        "status",
        "say what the kernels are compiled for and where they are; exit status 1 where some are missing",
        _status,
        "fluoronav kernels status",
    )
    for parser in (build, status):
        parser.add_argument(
            "--target",
            nargs="+",
            choices=("this", "all", *_TARGETS),
            default=["this"],
            help="instruction sets: that of `this` processor; `all` for processors with AVX2 (x86-64-v3) and with "
            "AVX-512 (x86-64-v4), for an image that runs on other computers; or by name",
        )
        parser.add_argument(
            "--for-all-users",
            action="store_true",
            help="in the installed package, for every user of this computer, instead of this user's cache",
        )
    build.add_argument("--processes", type=count, default=0, help="processes that compile; 0 takes one per processor")


def _targets(names: list[str]) -> list[str]:
    from fluoronav.kernels.target import USUAL_LEVELS, this_target

    meant = {"this": (this_target(),), "all": (*USUAL_LEVELS, this_target())}
    return list(dict.fromkeys(target for name in names for target in meant.get(name, (name,))))


def _build(options: argparse.Namespace) -> None:
    from tqdm import tqdm

    from fluoronav.kernels.build import build, wanted_kernels
    from fluoronav.kernels.cache import clear_old, folders, installed_folder
    from fluoronav.kernels.target import in_words

    folder = installed_folder() if options.for_all_users else folders()[0]
    targets = _targets(options.target)
    for target in targets:
        began = time.monotonic()
        with tqdm(unit="kernel", leave=False, delay=1, desc=f"kernels for {target}") as bar:

            def show(done: int, total: int, name: str, bar: tqdm = bar) -> None:
                bar.total = total
                bar.set_postfix_str(name.rpartition(":")[2], refresh=False)
                bar.update(done - bar.n)

            built = build(None, target, folder, show, options.processes or None)
        took = f"{built} compiled in {time.monotonic() - began:.1f} s" if built else "nothing to compile"
        print(f"kernels for {in_words(target)}: {took}; in {folder}")
    removed = clear_old(folder, {w.file_name for target in targets for w in wanted_kernels(target)})
    if removed:
        say(f"{removed} files of older versions removed")


def _status(options: argparse.Namespace) -> int:
    from fluoronav.kernels.build import missing, wanted_kernels
    from fluoronav.kernels.cache import folders, installed_folder
    from fluoronav.kernels.target import host_features, in_words, level_of

    print(f"this processor: {in_words(level_of(host_features()) or 'no level of x86-64 that is known')}")
    places = [installed_folder()] if options.for_all_users else folders()
    whole = True
    for target in _targets(options.target):
        wanted = wanted_kernels(target)
        absent = missing(wanted, places)
        whole = whole and not absent
        state = f"{len(wanted) - len(absent)} of {len(wanted)} compiled" if absent else f"all {len(wanted)} compiled"
        print(f"kernels for {in_words(target)}: {state}")
        for one in absent:
            print(f"  missing: {one.kernel} {one.signature}")
    for place in places:
        sizes = [path.stat().st_size for path in place.glob("*.kernel")] if place.is_dir() else []
        print(f"{place}: {len(sizes)} files, {sum(sizes) / 1e6:.1f} MB")
    if not whole:
        print("compile them with `fluoronav kernels build`")
    return 0 if whole else 1
