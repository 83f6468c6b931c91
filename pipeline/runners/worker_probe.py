"""What is asked of a Dask scheduler and its workers, without waiting for those that are gone."""

from collections.abc import Callable, Collection, Mapping
from concurrent.futures import CancelledError
from contextlib import suppress
from pkgutil import resolve_name
from threading import Event
from typing import TypeVar

from distributed import Client, Future, wait

from basics.errors import UserError
from pipeline.runners.tasks import work_on

Answer = TypeVar("Answer")
_FETCH = 10.0
"""Seconds to wait for an answer that is ready; a worker that has it may go at that moment."""
_LOOK = 2.0
"""Seconds between two looks at whether workers that were asked something are still there."""


def able_workers(client: Client, resources: Mapping[str, float]) -> dict[str, int]:
    """Return how many tasks each worker of a scheduler can work on at a time, if each needs some resources.

    Raises:
        OSError, RuntimeError: the scheduler does not answer.
    """
    threads = _running(client)
    if not resources:
        return threads
    told = client.scheduler_info(n_workers=-1)["workers"]
    offers = {address: worker["resources"] for address, worker in told.items()}
    places = {
        address: min(number, *(int(offers.get(address, {}).get(name, 0) // need) for name, need in resources.items()))
        for address, number in threads.items()
    }
    return {address: number for address, number in places.items() if number}


def _running(client: Client) -> dict[str, int]:
    """Return the threads of each worker that takes tasks; one whose memory is short is paused, and takes none."""
    if client.scheduler is None:
        raise RuntimeError("The connection to the Dask scheduler is closed.")
    threads: dict[str, int] = client.sync(client.scheduler.ncores_running)
    return threads


def answers(client: Client, asked: "Mapping[str, Future[Answer]]") -> dict[str, Answer]:
    """Return what workers answer; those that leave before they have are left out.

    Args:
        client: connection to the scheduler.
        asked: the question put to each worker, by the worker's address.

    Raises:
        UserError: one cannot answer, or all have left, or the scheduler is lost.
    """
    waiting = dict(asked)
    try:
        while not all(future.done() for future in waiting.values()):
            with suppress(TimeoutError):
                wait(list(waiting.values()), timeout=_LOOK)
            here = _running(client)
            waiting = {address: future for address, future in waiting.items() if future.done() or address in here}
    except (OSError, CancelledError) as error:
        raise UserError("The Dask scheduler was lost while its workers were asked what they are.") from error
    if not waiting:
        raise UserError("Every worker left when it was asked what it is; see their logs (too little memory?).")
    return {address: _answer(address, future) for address, future in waiting.items()}


def _answer(address: str, future: "Future[Answer]") -> Answer:
    try:
        return future.result(timeout=_FETCH)
    except UserError:
        raise
    except Exception as error:  # whatever a worker raises that cannot even load the question
        raise UserError(
            f"The worker {address} cannot tell what it is ({type(error).__name__}: {' '.join(str(error).split())}); "
            "install the same advbn-gen there, and where the scheduler runs, as here."
        ) from error


def asked_for_code(client: Client, address: str) -> "Future[object]":
    """Ask a worker to load what a shard needs.

    By its name: a worker that cannot unpickle what it is sent does not say so, but ends.
    """
    name = f"{work_on.__module__}:{work_on.__qualname__}"
    return client.submit(resolve_name, name, workers=[address], pure=False)


class Newcomers:
    """Asks every worker that comes whether it can load our code, as it would otherwise fail at all it is given."""

    def __init__(self, client: Client, on_answer: Callable[[], None]) -> None:
        self._client, self._on_answer = client, on_answer
        self._asked: dict[str, Future[object]] = {}
        self._news = Event()

    def ask(self, here: Collection[str]) -> None:
        """Ask those of the workers here that were not asked yet."""
        self._news.clear()
        for address in self._asked.keys() - set(here):
            self._asked.pop(address).release()
        for address in here:
            if address not in self._asked:
                self._asked[address] = asked_for_code(self._client, address)
                self._asked[address].add_done_callback(self._answered)

    def _answered(self, _: "Future[object]") -> None:
        self._news.set()
        self._on_answer()

    def answered(self) -> bool:
        """Return whether one has answered since others were asked last."""
        return self._news.is_set()

    def ready(self) -> list[str]:
        """Return the workers that can."""
        return [address for address, future in self._asked.items() if future.status == "finished"]

    def unable(self) -> dict[str, str]:
        """Return the workers that cannot, and why."""
        failed = {address: future for address, future in self._asked.items() if future.status == "error"}
        return {address: repr(future.exception(timeout=_FETCH)) for address, future in failed.items()}
