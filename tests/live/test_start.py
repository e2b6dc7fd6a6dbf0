"""After `fluoronav kernels build` a whole stream compiles nothing: what is compiled is a new file in the cache."""

import shutil

from fluoronav.kernels.build import build, wanted_kernels
from fluoronav.kernels.cache import folders
from fluoronav.kernels.target import this_target
from fluoronav.lab.simulation.rig import capture_run
from fluoronav.paths import shipped
from fluoronav.site.launch import load_launch
from fluoronav.stream.pipeline.stages import STAGES


def test_a_stream_with_every_stage_compiles_nothing_after_a_build(tmp_path, monkeypatch):
    build()
    kernels = tmp_path / "kernels"
    kernels.mkdir()
    for one in wanted_kernels(this_target()):
        shutil.copy(next(f / one.file_name for f in folders() if (f / one.file_name).exists()), kernels)
    before = {p.name: p.stat().st_mtime_ns for p in kernels.iterdir()}
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(kernels))
    launch = load_launch(shipped("launch/demo.yaml"), stages=list(STAGES))
    run = capture_run(launch.model_dump(mode="json"), 240, 30.0)
    assert run.ended == "" and run.overlays
    assert {p.name: p.stat().st_mtime_ns for p in kernels.iterdir()} == before
