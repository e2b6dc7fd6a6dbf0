"""`fluoronav site init`."""

from __future__ import annotations

import argparse
from pathlib import Path

from fluoronav.cli.arguments import add_family, add_verb, port


def add_verbs(verbs: argparse._SubParsersAction) -> None:
    family = add_family(verbs, "site", "set up this installation", "fluoronav site init site/")
    init = add_verb(
        family,
        "init",
        "write a commented SITE.yaml and a site key; its archive is the node's own, so that no PACS is needed to try",
        _init,
        "fluoronav site init site/",
        "fluoronav site init site/ --name OR-1 --port 11112",
    )
    init.add_argument("folder", type=Path, help="folder to write to")
    init.add_argument("--name", default="SITE", help="name of the site, which issues its patient IDs")
    init.add_argument("--port", type=port, default=11112, help="TCP port to listen on")


def _init(options: argparse.Namespace) -> None:
    from fluoronav.site.init import init_site
    from fluoronav.site.site_file import load_site

    path = init_site(options.folder, options.name, options.port)
    load_site(path)
    print(f"{path}: written. Start the node: fluoronav pacs serve {path}")
