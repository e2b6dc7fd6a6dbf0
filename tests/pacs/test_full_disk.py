"""A disk that is really full: a small file system of its own, under the receiver, the outbox and live results."""

import os
import subprocess
from pathlib import Path

import pytest
from tests.pacs.conftest import ct_series, send, until
from tests.pacs.test_live_results import event
from tests.pacs.test_outbox import save

from fluoronav.dicom.objects import source_of
from fluoronav.pacs.live_results import of_moment
from fluoronav.pacs.outgoing import open_outbox
from fluoronav.pacs.pseudonyms import Pseudonyms
from fluoronav.pacs.spool import Spool
from fluoronav.site.init import init_site
from fluoronav.site.site_file import load_site

DISK_MB, LARGE_PX = 8, 2048  # an object of 8 MB is larger than what is free


@pytest.fixture
def disk(tmp_path):
    """A file system of 8 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(folder)]
    if os.getuid() != 0 or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("a file system can be mounted by root alone")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def free(folder):
    stat = os.statvfs(folder)
    return stat.f_bavail * stat.f_frsize


def filled(folder, left):
    """Fills the disk up, so that only so many bytes are left; the file that does it."""
    ballast = folder / "ballast"
    with ballast.open("wb") as file:
        file.write(b"\0" * max(free(folder) - left, 0))
    return ballast


def test_an_object_that_the_disk_cannot_take_is_refused_and_comes_when_there_is_room(make_node, disk):
    def change(content):
        content["folder"], content["node"]["least_free_mb"] = str(disk / "node"), 1

    node = make_node(change)
    large = ct_series(count=1)[0]
    large.Rows = large.Columns = LARGE_PX
    large.PixelData = bytes(2 * LARGE_PX**2)
    small = ct_series(count=2)
    assert send(node.port, small[:1]) == [0x0000]
    assert send(node.port, [large])[0] == 0xA700
    # Nothing of it is left, and the node goes on.
    assert not list((disk / "node" / "arriving").iterdir())
    assert send(node.port, small[1:]) == [0x0000]
    ballast = filled(disk, 200_000)
    assert send(node.port, ct_series(count=2)) == [0xA700, 0xA700]
    ballast.unlink()
    assert set(send(node.port, ct_series(count=2))) == {0x0000}
    assert node.status["refused"]["out of resources"] >= 3 and node.process.poll() is None


def test_a_result_that_the_disk_cannot_take_is_not_in_the_outbox_and_can_be_put_in_later(disk, tmp_path):
    site = load_site(init_site(disk / "site"))
    outbox = open_outbox(site)
    file = next(save(ct_series(count=1), tmp_path / "out").iterdir())
    ballast = filled(disk, 4096)
    with pytest.raises(OSError, match="No space left"):
        outbox.add(file, "archive")
    assert outbox.left() == 0 and not list((site.folder / "outbox").iterdir())
    ballast.unlink()
    assert outbox.add(file, "archive") and outbox.left() == 1


def test_live_results_wait_for_the_disk_and_are_whole_when_there_is_room(disk, tmp_path):
    site = load_site(init_site(disk / "site"))
    pseudonyms = Pseudonyms.load(site.key)
    spool = Spool(site.folder / "live", open_outbox(site), pseudonyms, site.results_to)
    made = of_moment(source_of(ct_series(count=3), "ct"), event(), "SITE")
    ballast = filled(disk, 20_000)
    with pytest.raises(OSError, match="No space left"):
        spool.keep(made)
    ballast.unlink()
    assert spool.keep(made) == len(made)
    assert spool.forward() == (len(made), [])
    assert not [p for p in (site.folder / "live").iterdir() if p.suffix in (".part", ".dcm")]


def test_while_the_disk_is_full_the_node_lives_and_what_waits_is_sent_afterwards(make_node, disk, orthanc, tmp_path):
    def change(content):
        content["folder"], content["node"]["least_free_mb"] = str(disk / "node"), 1
        content["peers"]["pacs"], content["results_to"] = {"dicomweb": orthanc.web}, "pacs"

    node = make_node(change)
    out: Path = save(ct_series(count=2), tmp_path / "out")
    ballast = filled(disk, 0)
    done = node.command("send", out, "--site", node.file)
    assert done.returncode != 0 and "Traceback" not in done.stderr, done.stderr
    assert node.process.poll() is None
    ballast.unlink()
    done = node.command("send", out, "--site", node.file, "--wait", 60)
    assert done.returncode == 0, done.stderr + node.log.read_text()
    until(lambda: len(orthanc.get("/instances")) == 2)
