"""What is asked of a Dask scheduler and its workers, without waiting for those that are gone."""

from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from functools import partial
from typing import TypeVar

from distributed import Client, Future, wait

from basics.errors import UserError

Answer = TypeVar("Answer")
FETCH = 10.0
"""Seconds to wait for results that are ready; a worker that has them may go at that moment."""
_LOOK = 2.0
"""Seconds between two looks at whether workers that were asked something are still there."""


def able_workers(client: Client, resources: Mapping[str, float]) -> dict[str, int]:
    """Return how many threads each worker of a scheduler has that offers some resources.

    Raises:
        OSError, RuntimeError: the scheduler does not answer.
    """
    threads: dict[str, int] = client.nthreads()
    if not resources:
        return threads
    told = client.scheduler_info(n_workers=-1)["workers"]
    offers = {address: worker["resources"] for address, worker in told.items()}
    return {
        address: number
        for address, number in threads.items()
        if all(offers.get(address, {}).get(name, 0) >= amount for name, amount in resources.items())
    }


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
        return future.result(timeout=FETCH)
    except UserError:
        raise
    except Exception as error:  # whatever a worker raises that cannot even load the question
        raise UserError(
            f"The worker {address} cannot tell what it is ({type(error).__name__}: {error}); "
            "install the same advbn-gen there as here."
        ) from error


def fetched(client: Client, futures: "Sequence[Future[Answer]]") -> dict[str, Answer]:
    """Return the results of finished tasks by their keys, all in one request; none if one of them cannot be had."""
    if not futures:
        return {}
    gather = partial(client.gather, futures, asynchronous=True)
    try:
        results = client.sync(gather, callback_timeout=FETCH)
    except Exception:
        # Asked for one by one, each tells what became of it.
        return {}
    return {str(future.key): result for future, result in zip(futures, results, strict=True)}
