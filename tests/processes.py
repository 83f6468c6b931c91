"""The command line as a real process, for tests that kill it, starve it or watch it.

Importing torch and its companions takes a new interpreter 5 to 10 seconds of a core. Processes are therefore forked
from a server that has imported everything (`tests/preloaded.py`): each has its own memory, files, signals and end, and
lacks only that start. Where the start matters, `start_interpreter` starts a new interpreter.
"""

import atexit
import multiprocessing
import os
import runpy
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from functools import cache
from multiprocessing import forkserver, reduction
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

import dask

ROOT = Path(__file__).parents[1]
LONGEST = 90.0
"""Seconds after which a process that should have ended is taken for stuck."""

Result = TypeVar("Result")


def environment(**more: str) -> dict[str, str]:
    """The test's own environment, with the project importable and one computing thread."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", **more}


def in_a_process(function: Callable[..., Result], *words: object) -> Result:
    """Call a function of a module in a process of its own, forked from the server."""
    with ProcessPoolExecutor(1, preloaded()) as pool:
        return pool.submit(function, *words).result(LONGEST)


@cache
def preloaded() -> ForkServerContext:
    """Return the context whose processes are forked from a server that has imported everything."""
    # The first server that a process starts stays, whatever others (Dask) would have theirs import later.
    forkserver.set_forkserver_preload(["tests.preloaded"])
    with mock.patch.dict(os.environ, environment()):
        forkserver.ensure_running()
    return multiprocessing.get_context("forkserver")


class Forked:
    """A program of Python's `-m` in a process of its own, forked from the server; used as `subprocess.Popen` is.

    Args:
        module: the program.
        words: its command line.
        folder: the folder that it runs in; this process's own if not given.
        output: file that its output goes to; pipes that `communicate` reads if not given.
        first: called in the new process before the program; can be pickled.
        env: its environment.
    """

    def __init__(
        self,
        module: str,
        words: Sequence[object],
        *,
        folder: Path | None = None,
        output: int | None = None,
        first: Callable[[], object] | None = None,
        env: Mapping[str, str],
    ) -> None:
        pipes = [os.pipe(), os.pipe()] if output is None else []
        self._readers = [reader for reader, _ in pipes]
        inherited = [_Inherited(writer) for _, writer in pipes] or [_Inherited(output or 0)] * 2
        texts = [module, *map(str, words)]
        self._process = preloaded().Process(target=_run, args=(texts, folder or Path.cwd(), inherited, first, env))
        self._process.start()
        for _, writer in pipes:
            os.close(writer)
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        """Exit code, None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """Return the exit code, None while it runs."""
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end; return the exit code."""
        self._process.join(timeout)
        code = self.returncode
        if code is None:
            raise subprocess.TimeoutExpired(str(self._process), timeout or 0)
        return code

    def send_signal(self, sig: int) -> None:
        """Send a signal, unless it has ended."""
        if self.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, sig)

    def kill(self) -> None:
        """Send SIGKILL, unless it has ended."""
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float) -> tuple[str, str]:
        """Read its output until it, and every process that it started, has closed it; wait for its end."""
        end, found = time.monotonic() + timeout, dict.fromkeys(self._readers, b"")
        with selectors.DefaultSelector() as selector:
            for reader in self._readers:
                selector.register(reader, selectors.EVENT_READ)
            while selector.get_map():
                ready = selector.select(end - time.monotonic())
                if not ready and time.monotonic() > end:
                    raise subprocess.TimeoutExpired(str(self._process), timeout)
                for key, _ in ready:
                    content = os.read(key.fd, 2**16)
                    found[key.fd] += content
                    if not content:
                        selector.unregister(key.fd)
                        os.close(key.fd)
        self.wait(end - time.monotonic())
        out, err = (content.decode() for content in found.values())
        return out, err


class _Inherited:
    """A file that the new process has open, too; there, it is the number."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce__(self) -> tuple[Any, ...]:
        return _detach, (reduction.DupFd(self.number),)


def _detach(duplicate: Any) -> int:
    number: int = duplicate.detach()
    return number


def _run(
    texts: list[str], folder: Path, output: list[int], first: Callable[[], object] | None, env: Mapping[str, str]
) -> None:
    """Be the program, from here to the end of the process."""
    os.setsid()
    for number, own in zip(output, (1, 2), strict=True):
        os.dup2(number, own)
    for number in set(output):
        os.close(number)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)
    dask.config.refresh()
    if first is not None:
        first()
    sys.argv = texts
    try:
        runpy.run_module(texts[0], run_name="__main__", alter_sys=True)
    finally:
        # What an interpreter does at its end, and multiprocessing leaves out.
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()


Running = Forked | subprocess.Popen[str]


def start(*words: object, first: Callable[[], object] | None = None) -> Forked:
    """Start the program; it has a session of its own, so that signals reach it alone."""
    return Forked("cli", words, first=first, env=environment())


def start_interpreter(*words: object) -> "subprocess.Popen[str]":
    """Start the program as `start` does, in a new interpreter."""
    return subprocess.Popen(
        [sys.executable, "-m", "cli", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        start_new_session=True,
    )


def finish(process: Running) -> tuple[int, str, str]:
    """Wait for the end: exit code, stdout, stderr; leave none of its own processes behind."""
    try:
        out, err = process.communicate(timeout=LONGEST)
    finally:
        kill_session(process)
    assert process.returncode is not None
    return process.returncode, out, err


def kill_session(process: Running | subprocess.Popen[bytes]) -> None:
    """Kill a process and all that it has started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    # It may not have come to open its session yet.
    process.kill()


def wait_until(happened: Callable[[], bool], process: Running | subprocess.Popen[bytes]) -> bool:
    """Poll until something happened (True) or the process ended (False)."""
    end = time.monotonic() + LONGEST
    while time.monotonic() < end:
        if happened():
            return True
        if process.poll() is not None:
            return False
        time.sleep(0.002)
    raise TimeoutError("neither did it happen nor did the process end")
