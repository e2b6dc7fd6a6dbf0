"""The case store: a folder for each case under a pseudonym, and its index in the node's database."""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from pathlib import Path
from sqlite3 import Row

from fluoronav.durable import made_folder, sync_folder
from fluoronav.pacs.arrivals import Arrivals
from fluoronav.pacs.database import Database
from fluoronav.pacs.identities import Identities
from fluoronav.pacs.jobs import Job, Made
from fluoronav.pacs.series import Event, State
from fluoronav.site.case_trail import CaseTrail
from fluoronav.site.site_file import SiteFile

log = logging.getLogger(__name__)
_FLAGGED = "quiet"
_BEFORE = ".ct-before"  # the slices that are about to be replaced
_VOLUMES = ("CT", "CBCT")


class CaseStore:
    """Makes jobs of complete series, and cases of what comes of them.

    Every step can be done again: folders have the names that the series gives them, and only the last step, the row in
    the database, says that a series is done with.

    Parameters
    ----------
    site : SiteFile
    database : Database
    arrivals : Arrivals
    identities : Identities
    """

    def __init__(self, site: SiteFile, database: Database, arrivals: Arrivals, identities: Identities) -> None:
        self._site, self._database, self._arrivals, self._identities = site, database, arrivals, identities
        self._folder = made_folder(site.cases)

    def todo(self) -> list[Row]:
        """Complete series of which a case is to be made."""
        return [r for r in self._arrivals.series(State.COMPLETE) if not r["handled"]]

    def job(self, series: Row) -> Job | None:
        """What is to be done with a series; None where no case is made of it, which is noted."""
        key, workflow = series["key"], series["key"].partition("/")[0]
        if workflow == "archive":
            self._done(key, "")
            return None
        if series["kind"] not in _VOLUMES:
            self._done(key, f"kept as it came: no case is made of {series['kind'] or 'an object without modality'}")
            return None
        patients = self._arrivals.patients(key)
        if "" in patients:
            return self._unusable(key, "there is no PatientID: whose it is cannot be told")
        if len(patients) > 1:
            return self._unusable(key, f"its instances are of {len(patients)} patients")
        texts = self._without_text(key)
        if texts is None:
            return None
        job = self._job(series, patients[0], series["evidence"], texts)
        if job is None:
            return self._unusable(key, "there is no case of this patient to compare with: send the planning CT first")
        if not job.files and job.before is not None:
            # They came while the case was made, and are in it.
            self._done(key, "")
            return None
        return job

    def job_ahead(self, series: Row) -> Job | None:
        """What :meth:`job` will say if the series turns out to be complete as it is; notes nothing.

        None where something speaks against a case, which is for :meth:`job` to say.
        """
        patients = self._arrivals.patients(series["key"])
        workflow = series["key"].partition("/")[0]
        if workflow == "archive" or series["kind"] not in _VOLUMES or len(patients) != 1 or "" in patients:
            return None
        if self._arrivals.with_text(series["key"]):
            return None
        job = self._job(series, patients[0], "released", "")
        return job if job is not None and job.files else None

    def _job(self, series: Row, patient: str, evidence: str, texts: str) -> Job | None:
        key, workflow = series["key"], series["key"].partition("/")[0]
        place = self._place(series, workflow, patient)
        if place is None:
            return None
        name, target = place
        flags = ["nobody said that this series had ended: it went quiet"] if evidence == _FLAGGED else []
        flags += [texts] if texts else []
        return Job(
            tuple(self._arrivals.files(key)),
            target / "ct" if (target / "ct").is_dir() else None,
            self._folder / f".incoming-{key.replace('/', '-')}",
            name,
            patient,
            self._site.key,
            evidence,
            "; ".join(flags),
        )

    def finish(self, series: Row, job: Job, made: Made) -> None:
        """Puts what was made where it belongs, notes it, and removes the originals."""
        key = series["key"]
        refused = made.refused
        if not refused and made.identity is not None:
            refused = self._identities.contradiction(made.identity)
        if refused or made.identity is None:
            shutil.rmtree(job.into, ignore_errors=True)
            self._unusable(key, refused)
            return
        workflow = key.partition("/")[0]
        place = self._place(series, workflow, job.patient)
        assert place is not None
        target = place[1]
        self._put(job.into, target)
        now = time.time_ns()
        with self._database.transaction() as sql:
            (here,) = sql.execute("SELECT COUNT(*) FROM instances WHERE series = ?", (key,)).fetchone()
            (state,) = sql.execute("SELECT state FROM series WHERE key = ?", (key,)).fetchone()
            self._identities.add(sql, made.identity)
            sql.execute(
                "INSERT INTO cases VALUES (?, ?, ?, 'arrived', ?, ?) ON CONFLICT(series) DO UPDATE SET "
                "warnings = excluded.warnings, made_ns = excluded.made_ns",
                (place[0] if workflow == "plan" else str(target.relative_to(self._folder)),
                 self._identities.survivor(job.patient), key, json.dumps(made.warnings), now),
            )  # fmt: skip
            # Instances that came meanwhile have it judged and taken in again.
            sql.execute(
                "UPDATE series SET case_name = ?, handled = ? WHERE key = ?",
                (place[0], int(state == State.COMPLETE.value and here == series["here"]), key),
            )
        for path in job.files:
            path.unlink(missing_ok=True)
        log.info("case %s: arrived, %d slices", place[0], len(list((target / "ct").iterdir())))

    def failed(self, series: Row, job: Job, text: str) -> None:
        """Notes that making the case failed for a reason that is not the series'."""
        shutil.rmtree(job.into, ignore_errors=True)
        self._unusable(series["key"], text)

    def recover(self) -> None:
        """After a start: removes what was cut off, and originals of which a case was made."""
        for row in self._database.rows("SELECT key FROM series WHERE handled = 1 AND case_name IS NOT NULL"):
            for path in self._arrivals.files(row["key"]):
                path.unlink()
        for path in self._folder.glob(".incoming-*"):
            shutil.rmtree(path, ignore_errors=True)
        for before in [*self._folder.glob(f"*/{_BEFORE}"), *self._folder.glob(f"*/outcome/*/{_BEFORE}")]:
            if (before.parent / "ct").exists():
                shutil.rmtree(before, ignore_errors=True)
            else:
                os.replace(before, before.parent / "ct")

    def _without_text(self, key: str) -> str | None:
        """Sees to the images of a series that may have a name in their pixels, as the site says.

        Returns what a person is to know about them, empty for nothing; None where the series is refused.
        """
        texts, setting = self._arrivals.with_text(key), self._site.series.burned_in
        if not texts:
            return ""
        said = f"{len(texts)} images may have text in their pixels (BurnedInAnnotation, or a picture of a screen)"
        if setting == "take":
            return f"{said}; the site takes them"
        if setting == "refuse" or len(texts) == self._arrivals.here(key):
            self._unusable(
                key, f"{said}, and a case must not name its patient: send the series without them, or see `burned_in`"
            )
            return None
        for instance in texts:
            self._arrivals.set_aside(key, instance, "it may have text in its pixels")
        return f"{said}; they were set aside"

    def _place(self, series: Row, workflow: str, patient: str) -> tuple[str, Path] | None:
        """The name of the case that a series is of, and the folder that it goes to."""
        patient = self._identities.survivor(patient)
        rows = self._database.rows(
            "SELECT name, series FROM cases WHERE patient = ? AND series GLOB 'plan/*' ORDER BY made_ns", patient
        )
        if workflow == "compare":
            if not rows:
                return None
            last = rows[-1]["name"]
            return last, self._folder / last / "outcome" / series["key"].rpartition("/")[2]
        own = next((r["name"] for r in rows if r["series"] == series["key"]), None)
        name = own or (patient if not rows else f"{patient}-{len(rows) + 1}")
        return name, self._folder / name

    def _put(self, made: Path, target: Path) -> None:
        """Renames a folder into its place. A case that is there keeps what people made of it, and gets the new CT."""
        made_folder(target.parent)
        if not target.exists():
            os.replace(made, target)
            sync_folder(target.parent)
            return
        old = target / _BEFORE
        shutil.rmtree(old, ignore_errors=True)
        if (target / "ct").exists():
            os.replace(target / "ct", old)
        os.replace(made / "ct", target / "ct")
        if not (target / "case.yaml").exists():
            os.replace(made / "case.yaml", target / "case.yaml")
        for event in CaseTrail(made).events():
            CaseTrail(target).add(**{k: v for k, v in event.items() if k not in ("n", "t", "previous")})
        sync_folder(target)
        shutil.rmtree(old, ignore_errors=True)
        shutil.rmtree(made, ignore_errors=True)

    def _done(self, key: str, reason: str) -> None:
        with self._database.transaction() as sql:
            sql.execute("UPDATE series SET handled = 1, reason = ? WHERE key = ?", (reason, key))

    def _unusable(self, key: str, reason: str) -> None:
        log.warning("a series is refused: %s", reason)
        with self._database.transaction() as sql:
            (state,) = sql.execute("SELECT state FROM series WHERE key = ?", (key,)).fetchone()
            # More of it may have come meanwhile; then it is judged again.
            if state == State.COMPLETE.value:
                self._arrivals.happens(key, Event.UNUSABLE, reason=reason, sql=sql)
