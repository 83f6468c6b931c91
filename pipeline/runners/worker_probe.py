"""Questions to a Dask scheduler and its workers, with no wait for workers that are gone; the probe of new workers."""

from collections.abc import Callable, Collection, Mapping
from concurrent.futures import CancelledError
from contextlib import suppress
from pkgutil import resolve_name
from threading import Event
from typing import TypeVar

from distributed import Client, Future, wait

from basics.errors import UserError
from pipeline.runners.worker_entry import run_on_worker

Reply = TypeVar("Reply")
_FETCH_TIMEOUT = 10.0
"""Seconds to wait for a reply that is ready; the worker that holds it may die at that moment."""
_POLL_INTERVAL = 2.0
"""Seconds between two checks that the workers whose reply is missing are still alive."""


def worker_slots(client: Client, resources: Mapping[str, float]) -> dict[str, int]:
    """Return how many shards each running worker of a scheduler can make at a time, if each needs some resources.

    Workers without a slot are left out.

    Raises:
        OSError, RuntimeError: the scheduler does not answer.
    """
    threads = _running_workers(client)
    if not resources:
        return threads
    known = client.scheduler_info(n_workers=-1)["workers"]
    offers = {address: worker["resources"] for address, worker in known.items()}
    slots = {
        address: min(number, *(int(offers.get(address, {}).get(name, 0) // need) for name, need in resources.items()))
        for address, number in threads.items()
    }
    return {address: number for address, number in slots.items() if number}


def _running_workers(client: Client) -> dict[str, int]:
    """Return the threads of each worker that Dask gives work; it pauses a worker whose memory is short."""
    if client.scheduler is None:
        raise RuntimeError("The connection to the Dask scheduler is closed.")
    threads: dict[str, int] = client.sync(client.scheduler.ncores_running)
    return threads


def gather_replies(client: Client, calls: "Mapping[str, Future[Reply]]") -> dict[str, Reply]:
    """Return what calls on workers return; workers that leave before they have replied are left out.

    Args:
        client: connection to the scheduler.
        calls: the call made on each worker, by the worker's address.

    Raises:
        UserError: a call failed, or all workers have left, or the scheduler is lost.
    """
    waiting = dict(calls)
    try:
        while not all(future.done() for future in waiting.values()):
            with suppress(TimeoutError):
                wait(list(waiting.values()), timeout=_POLL_INTERVAL)
            running = _running_workers(client)
            waiting = {address: future for address, future in waiting.items() if future.done() or address in running}
    except (OSError, CancelledError) as error:
        raise UserError("The Dask scheduler was lost while its workers were being checked.") from error
    if not waiting:
        raise UserError("Every worker left while it was being checked; see their logs (too little memory?).")
    return {address: _reply(address, future) for address, future in waiting.items()}


def _reply(address: str, future: "Future[Reply]") -> Reply:
    try:
        return future.result(timeout=_FETCH_TIMEOUT)
    except UserError:
        raise
    except Exception as error:  # whatever a worker raises that cannot even load the function that is called
        raise UserError(
            f"The worker {address} cannot be checked ({type(error).__name__}: {' '.join(str(error).split())}); "
            "install the same advbn-gen there, and where the scheduler runs, as here."
        ) from error


def probe_code(client: Client, address: str) -> "Future[object]":
    """Have a worker import the code that makes a shard.

    By name: a worker that cannot unpickle what it is sent does not report an error, but ends.
    """
    name = f"{run_on_worker.__module__}:{run_on_worker.__qualname__}"
    return client.submit(resolve_name, name, workers=[address], pure=False)


class WorkerProbe:
    """Has every new worker import our code before it gets a shard: one that cannot would fail at every shard."""

    def __init__(self, client: Client, on_reply: Callable[[], None]) -> None:
        self._client, self._on_reply = client, on_reply
        self._probes: dict[str, Future[object]] = {}
        self._news = Event()

    def start(self, alive: Collection[str]) -> None:
        """Probe the workers that were not probed yet, and forget those that are no longer alive."""
        self._news.clear()
        for address in self._probes.keys() - set(alive):
            self._probes.pop(address).release()
        for address in alive:
            if address not in self._probes:
                self._probes[address] = probe_code(self._client, address)
                self._probes[address].add_done_callback(self._replied)

    def _replied(self, _: "Future[object]") -> None:
        self._news.set()
        self._on_reply()

    def has_news(self) -> bool:
        """Return whether a worker has replied since `start` was last called."""
        return self._news.is_set()

    def ready(self) -> list[str]:
        """Return the workers that passed."""
        return [address for address, future in self._probes.items() if future.status == "finished"]

    def failed(self) -> dict[str, str]:
        """Return the workers that did not pass, and the error of each."""
        failed = {address: future for address, future in self._probes.items() if future.status == "error"}
        return {address: repr(future.exception(timeout=_FETCH_TIMEOUT)) for address, future in failed.items()}
