"""The bench of the PACS node: its parts run on a small series, against a real archive and a real node."""

import pytest
from pydicom import dcmread

from fluoronav.lab.bench.pacs import bench, stream
from fluoronav.lab.bench.pacs.crash import bench_crash
from fluoronav.lab.bench.pacs.objects import measure_objects
from fluoronav.lab.bench.pacs.outage import bench_outage
from fluoronav.lab.bench.pacs.receive import bench_receive
from fluoronav.lab.bench.pacs.rig import PacsBenchError, check_installed, until
from fluoronav.lab.bench.pacs.series import template
from fluoronav.site.site_file import load_site


@pytest.fixture(scope="module")
def small():
    return template(12, 32)


def test_both_encodings_are_timed():
    seconds = measure_objects(side=24, structures=3)
    assert seconds.keys() == {"seg_binary_s", "seg_labelmap_s"} and all(s > 0 for s in seconds.values())


def test_a_series_is_sent_and_its_results_are_found_in_the_archive(small, tmp_path):
    said = []
    result = bench_receive(tmp_path, small, 1, said.append)
    assert result["receive_s"] > 0 and result["first_result_s"] > 0
    assert sum(result["first_result_phases_s"].values()) == pytest.approx(result["first_result_s"], abs=0.01)
    assert 20 < result["rss_mb"]["node"] < 2000 and 20 < result["rss_mb"]["worker"] < 2000
    assert len(said) == 2 and "warm-up" in said[0]


def test_a_node_that_is_killed_loses_and_doubles_nothing(small, tmp_path):
    result = bench_crash(tmp_path, small, lambda text: None, points=2)
    assert (result["lost"], result["doubled"]) == (0, 0) and len(result["crashes"]) == 2


def test_an_archive_that_was_down_gets_everything_once_and_its_figures_are_added(small, tmp_path):
    said = []
    found = bench_outage(tmp_path, small, said.append, minutes=0.1, most=2)
    assert (found["lost"], found["doubled"]) == (0, 0) and found["outage"]["all_there_s"] > 0
    assert any("archive down" in text and "0 results wait" not in text for text in said)
    result = dict.fromkeys(bench._FIGURES) | {"lost": 2, "doubled": 0}
    bench._add(result, {**found, "lost": 1, "doubled": 3})
    assert (result["lost"], result["doubled"]) == (3, 3) and "archive down for 0.1 min" in bench.table(result)


def test_beside_the_stream_series_are_taken_one_after_another_and_become_cases(small, tmp_path, monkeypatch):
    monkeypatch.setattr(stream, "_PAUSE_S", 0.1)
    with stream._receiving(tmp_path / "node", small) as taken:
        first = taken.value
        until(lambda: taken.value > first, "another series")
        site = load_site(tmp_path / "node" / "site" / "SITE.yaml")
        until(lambda: len(list(site.cases.glob("P*"))) > 1, "two cases")
    assert not (tmp_path / "node").exists()


def test_two_series_of_one_template_are_of_two_patients(small, tmp_path):
    first, second = (small.write(tmp_path / str(k), k) for k in (1, 2))
    assert first.patient_id != second.patient_id and first.study != second.study
    for series in (first, second):
        read = [dcmread(f) for f in series.files]
        assert {d.PatientID for d in read} == {series.patient_id} and {d.StudyInstanceUID for d in read} == {
            series.study
        }
        assert all(d.file_meta.MediaStorageSOPInstanceUID == d.SOPInstanceUID for d in read)
        assert len({d.SOPInstanceUID for d in read}) == 12


def test_without_the_archive_the_bench_says_what_to_install(monkeypatch):
    monkeypatch.setattr("fluoronav.lab.bench.pacs.rig.shutil.which", lambda name: None)
    with pytest.raises(PacsBenchError, match="apt-get install orthanc orthanc-dicomweb"):
        check_installed()


def test_the_table_shows_what_was_measured_and_leaves_out_the_rest():
    result = dict.fromkeys(bench._FIGURES) | {"receive_s": 1.25, "stream_p99_ms": {"alone": 20.0, "beside": 21.0}}
    text = bench.table(result)
    assert "1.25" in text and "1.05 of alone" in text and "SEG" not in text
