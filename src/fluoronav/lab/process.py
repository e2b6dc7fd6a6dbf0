"""Ends child processes of benches and rigs."""

from __future__ import annotations

import subprocess


def end_process(process: subprocess.Popen, seconds: float = 5.0) -> None:
    """Sends SIGTERM, and SIGKILL to a process that has not ended after `seconds`; does nothing after its end."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
