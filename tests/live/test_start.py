"""After `fluoronav kernels build` a whole stream compiles nothing: what is compiled is a new file in the cache."""

from fluoronav.kernels.build import build
from fluoronav.lab.simulation.rig import capture_run
from fluoronav.paths import shipped
from fluoronav.site.launch import load_launch
from fluoronav.stream.pipeline.stages import STAGES


def test_a_stream_with_every_stage_compiles_nothing_after_a_build(tmp_path, monkeypatch):
    kernels = tmp_path / "kernels"
    build(folder=kernels)
    before = {p.name: p.stat().st_mtime_ns for p in kernels.iterdir()}
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(kernels))
    launch = load_launch(shipped("launch/demo.yaml"), stages=list(STAGES))
    run = capture_run(launch.model_dump(mode="json"), 240, 30.0)
    assert run.ended == "" and run.overlays
    assert {p.name: p.stat().st_mtime_ns for p in kernels.iterdir()} == before
