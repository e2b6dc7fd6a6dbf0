"""A process that is told to end hears it, whatever its main thread does."""

import signal
import subprocess
import sys
import textwrap

import pytest


def ended(program, input_=None):
    """The output of a program that is to end by itself."""
    started = (
        f"import os, signal, sys, threading, time\nfrom fluoronav.process_end import *\n{textwrap.dedent(program)}"
    )
    return subprocess.run([sys.executable, "-c", started], capture_output=True, text=True, timeout=60, input=input_)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_another_thread_takes_is_heard_by_a_main_thread_that_waits(number):
    """As one that comes just before the wait begins: neither wakes the main thread."""
    told = ended(f"""
        stop = until_stopped()
        other = threading.Thread(target=time.sleep, args=(600,), daemon=True)
        other.start()
        threading.Timer(0.3, lambda: signal.pthread_kill(other.ident, {int(number)})).start()
        stop.wait()
        print("heard")
        """)
    assert (told.returncode, told.stdout) == (0, "heard\n"), told.stderr


def test_a_signal_while_the_main_thread_holds_the_lock_of_the_event_is_heard():
    told = ended("""
        stop = until_stopped()
        with stop._cond:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.3)
        stop.wait()
        print("heard")
        """)
    assert (told.returncode, told.stdout) == (0, "heard\n"), told.stderr


def test_who_ends_it_is_told_by_which_signal():
    told = ended("""
        numbers, both = [], threading.Event()
        on_end_signals(lambda number: (numbers.append(number.name), len(numbers) == 2 and both.set()))
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGTERM)
        both.wait()
        print(*numbers)
        """)
    assert told.stdout == "SIGINT SIGTERM\n", told.stderr


def test_a_closed_input_ends_it():
    told = ended("""
        stop = threading.Event()
        stop_when_input_ends(stop)
        stop.wait()
        print("ended")
        """, input_="")  # fmt: skip
    assert told.stdout == "ended\n", told.stderr
