"""How the work on one shard ended: all that a runner has to know of it."""

from dataclasses import dataclass
from enum import Enum


class Outcome(Enum):
    """How an attempt at a shard ended, and with it what may help."""

    DONE = "done"
    """The shard is finished."""
    FAILED = "failed"
    """The shard itself cannot be made (a broken image); the other shards are not affected."""
    TRANSIENT = "transient"
    """A fault that may not occur again (a store that does not answer); it is retried, if possible by another worker."""
    MACHINE_FAULT = "machine fault"
    """A fault that every shard would meet on this machine (disk full, out of memory); another machine may succeed."""
    FATAL = "fatal"
    """A fault that every shard would meet on every machine (another run took the folder); the run is aborted."""
    WRONG_ENVIRONMENT = "wrong environment"
    """The software, weights or hardware of this process are not those of the job; it did no work on the shard."""


@dataclass(frozen=True, kw_only=True)
class ShardResult:
    """Result of an attempt at one shard."""

    shard: int
    """Number of the shard."""
    outcome: Outcome = Outcome.DONE
    reason: str = ""
    """Why it was not made, in one sentence; empty if it was."""

    @property
    def done(self) -> bool:
        """Whether the shard is finished."""
        return self.outcome is Outcome.DONE

    @property
    def retryable(self) -> bool:
        """Whether another attempt may succeed, if possible by another worker."""
        return self.outcome in {Outcome.TRANSIENT, Outcome.MACHINE_FAULT}

    @property
    def aborts_run(self) -> bool:
        """Whether the run ends with this result, because every further shard would meet the same fault."""
        return self.outcome in {Outcome.MACHINE_FAULT, Outcome.FATAL}
