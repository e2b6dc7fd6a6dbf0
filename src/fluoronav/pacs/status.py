"""What `fluoronav pacs status` says: read from the node's database, whether the node runs or not."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fluoronav.pacs.database import Database
from fluoronav.pacs.outgoing import DATABASE
from fluoronav.pacs.running import LOCK, holder
from fluoronav.pacs.spool import LIVE, REFUSED, STRUCTURES, WHY
from fluoronav.site.site_file import SiteError, SiteFile

_ALIVE_S = 10.0  # since the last heartbeat; chosen: five of them


def read_status(site: SiteFile) -> dict[str, Any]:
    """Everything that waits, and why; no names, IDs or UIDs of patients.

    Raises
    ------
    SiteError
        The node has never run here.
    """
    path = site.folder / DATABASE
    if not path.exists():
        raise SiteError(f"{path}: is not there: the node has not run yet. Start it: fluoronav pacs serve {site.path}")
    database = Database(path)
    try:
        beat = database.rows("SELECT * FROM heartbeat")
        age_s = (time.time_ns() - beat[0]["beat_ns"]) / 1e9 if beat else None
        return {
            "node": {"running": age_s is not None and abs(age_s) < _ALIVE_S, "pid": beat[0]["pid"] if beat else None},
            "live": _live(site),
            "series": [
                {
                    "workflow": r["key"].partition("/")[0],
                    "series": r["key"].rpartition("/")[2][:12],
                    "state": r["state"],
                    "instances": r["here"],
                    "expected": r["expected"],
                    "complete_by": r["evidence"],
                    "flagged": r["evidence"] == "quiet",
                    "reason": r["reason"],
                    "case": r["case_name"],
                    "last": _time(r["last_ns"]),
                }
                for r in database.rows(
                    "SELECT s.*, (SELECT COUNT(*) FROM instances i WHERE i.series = s.key) AS here FROM series s "
                    "ORDER BY last_ns DESC LIMIT 200"
                )
            ],
            "cases": [
                {
                    "case": r["name"],
                    "stage": r["stage"],
                    "warnings": json.loads(r["warnings"]),
                    "made": _time(r["made_ns"]),
                }
                for r in database.rows("SELECT * FROM cases ORDER BY made_ns DESC LIMIT 200")
            ],
            "outbox": [
                {
                    "id": r["id"],
                    "peer": r["peer"],
                    "state": r["state"],
                    "attempts": r["attempts"],
                    "reason": r["reason"],
                    "next": _time(r["next_ns"]) if r["state"] in ("waiting", "stored") else None,
                }
                for r in database.rows("SELECT * FROM outbox WHERE state != 'sent' ORDER BY made_ns LIMIT 1000")
            ],
            **_fetching(database),
            "sent": database.rows("SELECT COUNT(*) AS n FROM outbox WHERE state = 'sent'")[0]["n"],
            "sent_with_warning": [
                {"id": r["id"], "peer": r["peer"], "warning": r["reason"]}
                for r in database.rows("SELECT * FROM outbox WHERE state = 'sent' AND reason != '' LIMIT 200")
            ],
            "aside": [dict(file=r["file"], reason=r["reason"]) for r in database.rows("SELECT * FROM aside LIMIT 200")],
            "refused": {r["what"]: r["number"] for r in database.rows("SELECT * FROM tally ORDER BY what")},
        }
    finally:
        database.close()


def _live(site: SiteFile) -> dict[str, Any]:
    """Whether `pacs live` runs, what waits for the outbox, and what the outbox refused and why."""
    folder = site.folder / LIVE
    return {
        "running": holder(folder / LOCK) is not None,
        "pid": holder(folder / LOCK),
        "waiting": len(list(folder.glob("*.dcm"))),
        "refused": [
            {"file": str(path.relative_to(site.folder)), "reason": _reason_of(path)}
            for spool in (folder, site.folder / STRUCTURES)
            for path in sorted(spool.glob(f"*{REFUSED}"))
        ],
    }


def _reason_of(path: Path) -> str:
    try:
        return path.with_suffix(WHY).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return "its reason was not kept; see the log of that time"


def _fetching(database: Database) -> dict[str, Any]:
    """What is fetched, and the cases that are scheduled."""
    return {
        "fetches": [
            {
                "id": r["id"],
                "peer": r["peer"],
                "for": r["source"],
                "state": r["state"],
                "attempts": r["attempts"],
                "reason": r["reason"],
                "next": _time(r["next_ns"]) if r["state"] == "waiting" else None,
            }
            for r in database.rows("SELECT * FROM fetches ORDER BY made_ns DESC LIMIT 200")
        ],
        "scheduled": [
            {
                "patient": r["patient"],
                "source": r["source"],
                "starts": _time(r["starts_ns"]),
                "state": r["state"],
                "reason": r["reason"],
            }
            for r in database.rows("SELECT * FROM scheduled ORDER BY starts_ns LIMIT 200")
        ],
    }


def told(status: dict[str, Any]) -> str:
    """The status as lines for people."""
    node = status["node"]
    lines = [f"node: {'running, process ' + str(node['pid']) if node['running'] else 'not running'}"]
    live = status["live"]
    lines.append(f"live: {'running, process ' + str(live['pid']) if live['running'] else 'not running'}")
    if live["waiting"]:
        lines.append(f"live: {live['waiting']} objects wait for the outbox")
    lines += [f"refused {r['file']}: {r['reason']}" for r in live["refused"]]
    for s in status["series"]:
        of = f" of {s['expected']}" if s["expected"] else ""
        flag = ", flagged: nobody said that it had ended" if s["flagged"] and s["state"] == "complete" else ""
        reason = f": {s['reason']}" if s["reason"] else ""
        lines.append(
            f"series {s['series']} ({s['workflow']}): {s['state']}, {s['instances']}{of} instances{flag}{reason}"
        )
    for c in status["cases"]:
        lines += [f"case {c['case']}: {c['stage']} {c['made']}", *(f"  WARNING {w}" for w in c["warnings"])]
    waiting = [o for o in status["outbox"] if o["state"] == "waiting"]
    stored = [o for o in status["outbox"] if o["state"] == "stored"]
    refused = len(status["outbox"]) - len(waiting) - len(stored)
    later = f"{len(stored)} stored and not committed, " if stored else ""
    lines.append(f"outbox: {len(waiting)} waiting, {later}{refused} refused, {status['sent']} sent")
    for o in status["outbox"]:
        when = f", next {o['next']}" if o["next"] else ""
        why = f": {o['reason']}" if o["reason"] else ""
        lines.append(f"  {o['id']} for {o['peer']}: {o['state']}, {o['attempts']} attempts{when}{why}")
    lines += [f"  {o['id']} for {o['peer']}: sent: {o['warning']}" for o in status["sent_with_warning"]]
    for s in status["scheduled"]:
        why = f": {s['reason']}" if s["reason"] else ""
        lines.append(f"scheduled {s['patient']} ({s['source']}) {s['starts']}: {s['state']}{why}")
    for f in status["fetches"]:
        why = f": {f['reason']}" if f["reason"] else ""
        lines.append(f"fetch {f['id']} from {f['peer']} for {f['for']}: {f['state']}{why}")
    lines += [f"aside: {a['file']}: {a['reason']}" for a in status["aside"]]
    lines += [f"{n} x {what}" for what, n in status["refused"].items()]
    return "\n".join(lines)


def _time(ns: int) -> str:
    return datetime.fromtimestamp(ns / 1e9, UTC).isoformat(timespec="seconds")
