"""Results of a case's structures: made when they are there, once, and again when they change."""

import subprocess
import sys

import pytest
import SimpleITK as sitk
import yaml
from pydicom import dcmread
from tests.case.scans import label_map, save
from tests.pacs.conftest import ct_series

from fluoronav.pacs.database import Database
from fluoronav.pacs.jobs import StructureJob, Structures
from fluoronav.pacs.outgoing import open_outbox
from fluoronav.pacs.pseudonyms import Pseudonyms
from fluoronav.pacs.spool import Spool
from fluoronav.pacs.structure_watch import StructureWatch
from fluoronav.pacs.structures import NOTE, make_results
from fluoronav.site.init import init_site
from fluoronav.site.site_file import load_site


class Here:
    """The workers, in this process."""

    asked = 0

    def structures(self, job):
        self.asked += 1
        return make_results(job)


class Store:
    def __init__(self, folder):
        self.site = load_site(init_site(folder / "site"))
        self.case = self.site.cases / "PABC"
        save(ct_series(), self.case / "ct")
        self.write()
        self.outbox = open_outbox(self.site)
        self.spool = Spool(self.site.folder / "structures", self.outbox, Pseudonyms.load(self.site.key), "archive")
        database = Database(self.site.folder / "node.sqlite")
        with database.transaction() as sql:
            sql.execute("INSERT INTO cases VALUES ('PABC', 'PABC', 'plan/x', 'arrived', '[]', 1)")
        self.workers = Here()
        self.watch = StructureWatch(self.site, database, self.spool, self.workers)

    def write(self, **more):
        prior = {"isocentre_ct": [0, 0, 60], "source_to_isocentre_mm": 620}
        content = {"name": "PABC", "ct": "ct", "prior": prior} | more
        (self.case / "case.yaml").write_text(yaml.safe_dump(content))

    def plan(self, bone="bone"):
        sitk.WriteImage(label_map(), str(self.case / "labels.nrrd"))
        structures = [{"name": n, "label": k + 1, "color": "#ff0000"} for k, n in enumerate((bone, "cord"))]
        self.write(labels="labels.nrrd", structures=structures)

    @property
    def job(self):
        return StructureJob(self.case, self.spool.folder, self.site.key, "SITE")

    def kept(self):
        return sorted(dcmread(p, stop_before_pixels=True).Modality for p in self.spool.folder.glob("*.dcm"))


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


def test_a_draft_without_structures_has_no_results(store):
    assert make_results(store.job) == Structures() and not store.kept()


def test_structures_become_a_segmentation_and_a_report_once(store):
    store.plan()
    assert make_results(store.job) == Structures(2) and store.kept() == ["SEG", "SR"]
    assert make_results(store.job) == Structures()


def test_killed_before_it_was_noted_the_same_bytes_are_made_again(store):
    store.plan()
    make_results(store.job)
    assert store.spool.forward() == (2, [])
    note = store.case / NOTE
    note.write_text(note.read_text().replace("true", "false"))
    assert make_results(store.job) == Structures(2)
    assert store.spool.forward() == (0, []) and store.outbox.left() == 2


def test_a_label_map_that_cannot_be_read_is_a_fault_and_the_next_one_is_taken(store):
    store.plan()
    (store.case / "labels.nrrd").write_bytes(b"no image")
    assert "labels.nrrd" in make_results(store.job).fault
    store.plan()
    assert make_results(store.job) == Structures(2)


def test_the_watch_waits_until_files_are_still_and_asks_again_only_after_a_change(store):
    store.watch.look()
    store.plan()
    store.watch.look()
    assert store.workers.asked == 0
    for _ in range(3):
        store.watch.look()
    assert store.workers.asked == 1 and store.outbox.left() == 2
    store.plan(bone="vertebra")
    for _ in range(3):
        store.watch.look()
    assert store.workers.asked == 2 and store.outbox.left() == 4


def test_the_resident_node_does_not_load_what_makes_objects():
    code = "import sys, fluoronav.pacs.node; sys.exit('fluoronav.dicom.objects' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
