"""What a journal holds is what was edited, whatever the order; deltas and merges hold for any label maps."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.workspace.conftest import CORD, T8, T9, image

from fluoronav.planning.revisions import Revisions
from fluoronav.planning.segmentation.engine import SegmentedStructure
from fluoronav.workspace import delta
from fluoronav.workspace.compare import compared, difference_mask, differing
from fluoronav.workspace.errors import DiskFull, OutOfStep, WorkspaceError
from fluoronav.workspace.journal import Journal, JournalError
from fluoronav.workspace.label_maps import voxel_counts
from fluoronav.workspace.saving import Saver
from fluoronav.workspace.scan import Scan
from fluoronav.workspace.session import FILE, Base, Session

SHAPE = (3, 4, 5)
LABELS = (0, T8, T9, CORD)
SCAN = Scan((5, 4, 3), (1.5, 1.25, 3.0), (-20.0, 31.5, -200.0), (1, 0, 0, 0, -1, 0, 0, 0, 1), "0" * 64, "", (), Path())

stroke = st.tuples(st.just("stroke"), st.sets(st.integers(0, 59), min_size=1, max_size=12), st.sampled_from(LABELS))
action = st.one_of(stroke, st.tuples(st.sampled_from(["undo", "redo", "reload", "save"])))


def start_map():
    labels = np.zeros(SHAPE, np.uint16)
    labels[1, 1:3, 1:4] = T8
    labels[2, :2, :2] = CORD
    return labels


class Folder:
    """A case's revisions without a server."""

    def __init__(self, path):
        self.path, self.revisions = path, Revisions(path)
        self.maps = {}
        (path / "case.yaml").write_text(
            '{"name": "A", "ct": "ct", "prior": {"isocentre_ct": [0, 0, 0], "source_to_isocentre_mm": 620}}'
        )
        labels = start_map()
        structures = tuple(
            SegmentedStructure(f"s{k}", k, "atlas", 1.0, n, 0.0) for k, n in voxel_counts(labels).items()
        )
        self.revisions.add(image(labels.astype(np.uint8)), structures, author="atlas", ct_hash="0" * 64, parent=0)
        self.saver = Saver(path, SCAN, self.base)

    def base(self, number):
        import SimpleITK as sitk

        if number not in self.maps:
            self.maps[number] = sitk.GetArrayFromImage(sitk.ReadImage(str(self.revisions.labels_path(number))))
        labels = self.maps[number].astype(np.uint16)
        return Base(self.revisions.read(number), labels, labels.copy(), voxel_counts(labels))

    def session(self, name="ada"):
        session = Session(self.path / name, SCAN)
        if session.parent is None:
            session.start(self.base(self.revisions.newest().number))
        else:
            session.resume(self.base(session.parent))
            self.saver.recover(session)
        return session


def runs_to(labels, at, label):
    at = np.array(sorted(at))
    return delta.from_voxels(at, labels.reshape(-1)[at], np.full(at.size, label, np.uint16))


@settings(max_examples=80)
@given(actions=st.lists(action, min_size=1, max_size=30))
def test_any_strokes_undos_reloads_and_saves_leave_the_map_that_a_plain_list_of_maps_says(actions):
    with tempfile.TemporaryDirectory() as temporary:
        folder = Folder(Path(temporary))
        session = folder.session()
        past, future = [start_map()], []
        for kind, *what in actions:
            if kind == "stroke":
                runs = runs_to(session.labels, *what)
                if runs.size:
                    session.step(runs, "brush")
                    after = past[-1].copy()
                    after.reshape(-1)[sorted(what[0])] = what[1]
                    past, future = [*past, after], []
            elif kind == "undo" and len(past) > 1:
                session.undo()
                future.append(past.pop())
            elif kind == "redo" and future:
                session.redo()
                past.append(future.pop())
            elif kind == "reload":
                session.close()
                session = folder.session()
            elif kind == "save" and (past[-1] != session.base.labels).any():
                number = folder.saver.save(session, "ada").revision.number
                assert (folder.base(number).labels == past[-1]).all()
            assert (session.labels == past[-1]).all()
            assert session.state()["undo"] == len(past) - 1 and session.state()["redo"] == len(future)
            assert {k: n for k, n in session.counts.items() if n} == voxel_counts(past[-1])
            at, now = session.changes()
            assert (at == differing(session.base.labels, past[-1])).all() and (now == past[-1].reshape(-1)[at]).all()
        session.close()


maps = st.lists(st.sampled_from(LABELS), min_size=60, max_size=60).map(lambda v: np.array(v, np.uint16).reshape(SHAPE))


@given(before=maps, after=maps)
def test_a_delta_leads_there_and_back_and_counts_what_it_changes(before, after):
    at = differing(before, after)
    runs = delta.from_voxels(at, before.reshape(-1)[at], after.reshape(-1)[at])
    flat = before.copy().reshape(-1)
    delta.apply(runs, flat)
    assert (flat == after.reshape(-1)).all() and delta.changed_voxels(runs) == at.size
    if runs.size:
        assert (delta.decoded(runs.tobytes(), 60) == runs).all()
    counts = voxel_counts(before)
    for label, n in delta.gains(runs).items():
        counts[label] = counts.get(label, 0) + n
    assert {k: n for k, n in counts.items() if n} == voxel_counts(after)
    delta.apply(delta.inverted(runs), flat)
    assert (flat == before.reshape(-1)).all()


@given(before=maps, after=maps)
def test_a_comparison_counts_as_masks_do(before, after):
    rows = {r["label"]: r for r in compared(before, after, {})["structures"]}
    mask = difference_mask(before, after)
    assert compared(before, after, {})["voxels"] == (mask > 0).sum()
    for label in LABELS[1:]:
        a, b = before == label, after == label
        if (a != b).any():
            dice = 2 * (a & b).sum() / (a.sum() + b.sum())
            assert rows[label]["dice"] == pytest.approx(dice, abs=1e-4) and rows[label]["differing"] == (a ^ b).sum()
        else:
            assert label not in rows
    assert ((mask == 1) == ((before > 0) & (after == 0))).all() and ((mask == 2) == ((before == 0) & (after > 0))).all()


def test_the_overlap_of_what_differs_is_never_rounded_to_one():
    """Regression: one voxel of a large structure was a Dice of 1."""
    before = np.full((8, 400, 400), T8, np.uint16)
    after = before.copy()
    after[0, 0, 0] = 0
    (row,) = compared(before, after, {})["structures"]
    assert row["differing"] == 1 and 0.9999995 < row["dice"] < 1


@given(mine=st.sets(st.integers(0, 59), max_size=15), theirs=st.sets(st.integers(0, 59), max_size=15))
def test_two_works_are_merged_voxel_by_voxel_or_refused_with_their_number(mine, theirs):
    with tempfile.TemporaryDirectory() as temporary:
        folder = Folder(Path(temporary))
        ada, ben = folder.session("ada"), folder.session("ben")
        for session, at, label in ((ada, mine, T9), (ben, theirs, CORD)):
            if at and (runs := runs_to(session.labels, at, label)).size:
                session.step(runs, "brush")
        start = start_map().reshape(-1)
        edited = {k for k in mine if start[k] != T9}, {k for k in theirs if start[k] != CORD}
        if not all(edited):
            return
        folder.saver.save(ben, "ben")
        both = edited[0] & edited[1]
        if both:
            with pytest.raises(OutOfStep) as caught:
                folder.saver.save(ada, "ada")
            assert caught.value.more["voxels"] == len(both) and ada.unsaved == 1
            folder.saver.save(ada, "ada", resolve="mine")
        else:
            folder.saver.save(ada, "ada")
        expected = start.copy()
        expected[sorted(edited[1])], expected[sorted(edited[0])] = CORD, T9
        assert (folder.base(3).labels.reshape(-1) == expected).all()
        ada.close()
        ben.close()


def test_a_save_of_which_only_the_revision_was_written_is_ended_when_the_session_is_taken_up(tmp_path):
    folder = Folder(tmp_path)
    session = folder.session()
    session.step(runs_to(session.labels, {1, 2, 3}, T9), "brush")
    journal = (tmp_path / "ada" / FILE).read_bytes()
    saved = folder.saver.save(session, "ada").revision
    session.close()
    (tmp_path / "ada" / FILE).write_bytes(journal)  # as a crash between the two leaves it
    (tmp_path / "labels.nii.gz").unlink()
    session = folder.session()
    assert (session.base.number, session.unsaved, session.state()["undo"]) == (saved.number, 0, 1)
    assert (tmp_path / "labels.nii.gz").read_bytes() == folder.revisions.labels_path(saved.number).read_bytes()
    assert folder.revisions.numbers() == [1, 2]


def test_a_case_file_that_cannot_be_read_does_not_stand_in_the_way_of_a_save(tmp_path):
    folder = Folder(tmp_path)
    session = folder.session()
    (tmp_path / "case.yaml").write_text("{")
    session.step(runs_to(session.labels, {1, 2, 3}, T9), "brush")
    assert folder.saver.save(session, "ada").revision.number == 2 and session.base.number == 2
    session.close()


def test_a_journal_that_is_damaged_in_its_middle_is_refused_and_can_be_left(tmp_path):
    folder = Folder(tmp_path)
    session = folder.session()
    for k in range(4):
        session.step(runs_to(session.labels, {k}, T9), "brush")
    session.close()
    path = tmp_path / "ada" / FILE
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(JournalError, match="damaged at byte"):
        Journal(path)
    again = Session(tmp_path / "ada", SCAN)
    again.start(folder.base(1))
    assert len(list((tmp_path / "ada").glob("aside-*"))) == 1


def test_one_session_is_never_open_in_two_servers(tmp_path):
    folder = Folder(tmp_path)
    session = folder.session()
    with pytest.raises(OutOfStep, match="another server"):
        folder.session()
    session.close()
    folder.session().close()


def test_a_disk_that_is_full_refuses_the_edit_and_keeps_the_journal(tmp_path, monkeypatch):
    import errno
    import os

    folder = Folder(tmp_path)
    session = folder.session()
    session.step(runs_to(session.labels, {1}, T9), "brush")
    before, bytes_before = session.labels.copy(), (tmp_path / "ada" / FILE).read_bytes()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as m:
        m.setattr(os, "fsync", full)
        with pytest.raises(DiskFull, match="not done"):
            session.step(runs_to(session.labels, {2}, T9), "brush")
        with pytest.raises(DiskFull):
            session.undo()
    assert (session.labels == before).all() and (tmp_path / "ada" / FILE).read_bytes() == bytes_before
    session.step(runs_to(session.labels, {2}, T9), "brush")
    session.close()
    session = folder.session()
    assert session.state()["undo"] == 2
    session.close()


def test_a_name_that_another_label_has_is_refused(tmp_path):
    session = Folder(tmp_path).session()
    session.step(delta.NOTHING, "name", {300: "lesion_1"})
    with pytest.raises(WorkspaceError, match="is the name of label 300"):
        session.step(delta.NOTHING, "name", {301: "lesion_1"})
    session.undo()
    session.step(delta.NOTHING, "name", {301: "lesion_1"})
    assert session.names[301] == "lesion_1"
    session.close()
