"""What the status says of live results, whether `pacs live` runs or not."""

import json
import os
import subprocess
import sys

import pytest
from tests.case.scans import save
from tests.pacs.conftest import ct_series, free_port, until

from fluoronav.pacs.outgoing import open_outbox
from fluoronav.pacs.pseudonyms import Pseudonyms
from fluoronav.pacs.running import AlreadyRunning, held, holder
from fluoronav.pacs.spool import Spool
from fluoronav.pacs.status import read_status, told
from fluoronav.site.init import init_site
from fluoronav.site.site_file import load_site


def test_objects_of_a_live_case_that_were_refused_are_shown_with_the_reason_and_no_name(tmp_path):
    site = load_site(init_site(tmp_path / "site"))
    outbox = open_outbox(site)
    spool = Spool(site.folder / "live", outbox, Pseudonyms.load(site.key), "archive")
    (good,) = ct_series(count=1)
    save([good], spool.folder)
    assert spool.forward() == (1, [])
    good.PatientComments = "other content, same UID"
    good.save_as(spool.folder / "PABC.dcm", enforce_file_format=True)
    (spool.folder / "PDEF.dcm").write_bytes(b"no DICOM")
    assert len(spool.forward()[1]) == 2
    (spool.folder / "old.refused").write_bytes(b"from before reasons were kept")
    live = read_status(site)["live"]
    assert not live["running"] and live["waiting"] == 0
    reasons = {r["file"]: r["reason"] for r in live["refused"]}
    assert set(reasons) == {"live/PABC.refused", "live/PDEF.refused", "live/old.refused"}
    assert "put in with other content" in reasons["live/PABC.refused"] and str(tmp_path) not in str(reasons)
    text = told(read_status(site))
    assert "live: not running" in text and "refused live/PABC.refused: has the SOPInstanceUID" in text
    assert good.PatientID not in text


def test_whether_pacs_live_runs_is_shown_and_ends_with_the_process(tmp_path):
    file = init_site(tmp_path / "site")
    site = load_site(file)
    text = file.read_text()
    ports = "".join(f"  {k}: tcp://127.0.0.1:{free_port()}\n" for k in ("out", "frames", "marks"))
    file.write_text(text + "\nlive:\n" + ports if "\nlive:" not in text else text)
    open_outbox(site)
    command = [sys.executable, "-m", "fluoronav", "pacs"]
    live = subprocess.Popen([*command, "live", str(file)], stderr=subprocess.PIPE)
    try:
        until(lambda: read_status(site)["live"]["running"], what="live")
        assert read_status(site)["live"]["pid"] == live.pid
        second = subprocess.run([*command, "live", str(file)], capture_output=True, text=True, timeout=180)
        assert second.returncode == 1 and f"process {live.pid} works in this folder" in second.stderr
        done = subprocess.run([*command, "status", str(file), "--json"], capture_output=True, text=True, timeout=180)
        assert json.loads(done.stdout)["live"]["running"]
    finally:
        live.kill()
        live.wait()
    assert not read_status(site)["live"]["running"]


def test_a_lock_is_held_by_one_and_gone_when_it_is_let_go(tmp_path):
    path = tmp_path / ".lock"
    assert holder(path) is None
    file = held(path)
    assert holder(path) == os.getpid()
    with pytest.raises(AlreadyRunning, match="works in this folder"):
        held(path)
    os.close(file)
    assert holder(path) is None
