"""A real Dask scheduler and real worker processes on the loopback, for tests that kill, stop and replace them."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.processes import Forked, environment, kill_session

Member = Forked | subprocess.Popen[bytes]


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Cluster:
    """A scheduler and its workers, each a process with a log of its own in `folder`."""

    def __init__(self, folder: Path, **scheduler: str) -> None:
        self.folder, self.address = folder, f"tcp://127.0.0.1:{free_port()}"
        self._started: list[Member] = []
        self.workers: list[Member] = []
        self._settings = scheduler
        self.scheduler = self.start_scheduler()

    def start_scheduler(self) -> Member:
        """Start a scheduler at the address."""
        self.scheduler = self._start("scheduler", "--host", self.address, "--no-dashboard", **self._settings)
        return self.scheduler

    def add_worker(self, *words: str, **more: str) -> Member:
        """Start a worker, with more words of its command line and more environment."""
        command = ("worker", self.address, "--nthreads", "1", "--no-dashboard", "--no-nanny", *words)
        self.workers.append(self._start(*command, **more))
        return self.workers[-1]

    def _start(self, *words: str, **more: str) -> Member:
        """Start one of Dask's programs: a new interpreter if it finds other modules than this one."""
        process: Member
        with (self.folder / f"dask-{len(self._started)}.log").open("wb") as log:
            if "PYTHONPATH" in more:
                process = subprocess.Popen(
                    [sys.executable, "-m", "dask", *words],
                    cwd=self.folder, env=environment(**more), stdout=log, stderr=log, start_new_session=True,
                )  # fmt: skip
            else:
                process = Forked("dask", words, folder=self.folder, output=log.fileno(), env=environment(**more))
        self._started.append(process)
        return process

    def logs(self) -> str:
        """What all of them have said so far."""
        return "".join(path.read_text() for path in sorted(self.folder.glob("dask-*.log")))

    def close(self) -> None:
        """End all of them."""
        for process in reversed(self._started):
            kill_session(process)
            process.wait()


@contextmanager
def cluster(folder: Path, workers: int, **scheduler: str) -> Iterator[Cluster]:
    """Lend a scheduler with so many workers; `scheduler` is environment of the scheduler."""
    started = Cluster(folder, **scheduler)
    try:
        for _ in range(workers):
            started.add_worker()
        yield started
    finally:
        started.close()
