"""What is asked of a Dask scheduler and its workers, without waiting for those that are gone."""

from collections.abc import Mapping
from concurrent.futures import CancelledError
from contextlib import suppress
from typing import TypeVar

from distributed import Client, Future, wait

from basics.errors import UserError

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
    threads: dict[str, int] = client.nthreads()
    if not resources:
        return threads
    told = client.scheduler_info(n_workers=-1)["workers"]
    offers = {address: worker["resources"] for address, worker in told.items()}
    places = {
        address: min(number, *(int(offers.get(address, {}).get(name, 0) // need) for name, need in resources.items()))
        for address, number in threads.items()
    }
    return {address: number for address, number in places.items() if number}


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
            here = client.nthreads()
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
            f"The worker {address} cannot tell what it is ({type(error).__name__}: {error}); "
            "install the same advbn-gen there as here."
        ) from error
