"""Which runner a run has: serial, on a local cluster or on a remote one."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from distributed import Client

from basics.errors import UserError
from pipeline.config import GenerationConfig
from pipeline.runners.dask_runner import DaskRunner
from pipeline.runners.local_cluster import LocalClusterRunner, end_unguarded_worker
from pipeline.runners.remote_cluster import (
    RemoteClusterRunner,
    common_environment,
    connected,
    needed_resources,
    require_importable_code,
    threads_per_slot,
    trial_of,
)  # fmt: skip
from pipeline.runners.runner import Runner
from pipeline.runners.serial import SerialRunner
from pipeline.worker import Environment, EnvironmentOf


@dataclass(frozen=True)
class RunnerSelection:
    """The runner of a run, and what its workers determine."""

    runner: Runner
    """What makes the shards."""
    config: GenerationConfig
    """The run's settings, with everything that the workers determine."""
    client: Client | None = None
    """Connection to a remote cluster's scheduler, whose workers may differ from this process."""
    resources: dict[str, float] = field(default_factory=dict)
    """What a worker of a remote cluster must offer."""

    @property
    def trial_config(self) -> GenerationConfig:
        """Settings with which this process can try the networks: the CPU if the workers are a remote cluster's."""
        return self.config if self.client is None else trial_of(self.config)

    def environment(self, environment_of: EnvironmentOf, config: GenerationConfig) -> Environment:
        """Return the environment that the workers have in common.

        Args:
            environment_of: returns the environment of the process that it is called in.
            config: the run.

        Raises:
            UserError: the workers differ from each other or from this process, or one cannot load the networks.
        """
        if self.client is None:
            return environment_of(config)
        return common_environment(self.client, self.resources, environment_of, config)


@contextmanager
def select_runner(config: GenerationConfig, scheduler: str | None) -> Iterator[RunnerSelection]:
    """Select the runner of a run; a connection to a scheduler is closed with the context.

    Args:
        config: the run; `workers` 0 means this process.
        scheduler: address of a running Dask scheduler, instead of `workers`.

    Raises:
        UserError: workers and a scheduler are both given, no scheduler answers there, it has no worker, or none with a
            GPU although the run needs one.
    """
    end_unguarded_worker()
    if scheduler is not None and config.workers:
        raise UserError("Workers of this machine and a scheduler's cannot be used together; give one of the two.")
    if scheduler is not None:
        with connected(scheduler) as client:
            resources = needed_resources(client, config)
            require_importable_code(client, resources)
            settled = replace(config, threads=config.threads or threads_per_slot(client, resources))
            yield RunnerSelection(RemoteClusterRunner(DaskRunner(client, resources)), settled, client, resources)
    elif config.workers:
        yield RunnerSelection(LocalClusterRunner(config), replace(config, threads=config.threads_each()))
    else:
        yield RunnerSelection(SerialRunner(), config)
