"""The recorder beside the pipeline: what became of a recording is said."""

import time

from fluoronav.site.launch import LaunchFile
from fluoronav.stream.pipeline.recording_process import RecordingProcess


def test_a_recording_that_was_stopped_before_it_began_and_left_no_file_is_a_fault(tmp_path):
    recording = RecordingProcess(LaunchFile(case="embedded", camera="camera.yaml", recordings=str(tmp_path)))
    path = recording.start()
    recording.stop()
    end = time.monotonic() + 30
    while (fault := recording.fault()) is None:
        assert time.monotonic() < end, "nobody said that there is no file"
        time.sleep(0.02)
    assert "there is no file" in fault and not path.exists()
