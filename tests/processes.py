"""The command line as a real process, for tests that kill it, starve it or watch it."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LONGEST = 90.0
"""Seconds after which a process that should have ended is taken for stuck."""


def command_line(*words: object) -> list[str]:
    """What starts the program as a process of its own."""
    return [sys.executable, "-m", "cli", *map(str, words)]


def environment(**more: str) -> dict[str, str]:
    """The test's own environment, with the project importable and one computing thread."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", **more}


def start(*words: object, first: Callable[[], None] | None = None) -> "subprocess.Popen[str]":
    """Start the program; it has a session of its own, so that signals reach it alone.

    `first` is called in the new process before the program.
    """
    return subprocess.Popen(
        command_line(*words),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        start_new_session=True,
        preexec_fn=first,  # noqa: PLW1509 (limits of the new process; no other way)
    )


def finish(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    """Wait for the end: exit code, stdout, stderr; leave none of its own processes behind."""
    try:
        out, err = process.communicate(timeout=LONGEST)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, out, err


def wait_until(happened: Callable[[], bool], process: "subprocess.Popen[Any]") -> bool:
    """Poll until something happened (True) or the process ended (False)."""
    end = time.monotonic() + LONGEST
    while time.monotonic() < end:
        if happened():
            return True
        if process.poll() is not None:
            return False
        time.sleep(0.002)
    raise TimeoutError("neither did it happen nor did the process end")
