"""The object store that the documentation's commands name."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from tests.pages.running import World
from tests.s3 import S3Server


@contextmanager
def lent_store(world: World) -> Iterator[Mapping[str, str]]:
    """Lend the environment of a server with `s3://images/ILSVRC2012_val` and an empty `s3://mine`."""
    server = S3Server()
    try:
        for bucket in ("images", "mine"):
            server.client.create_bucket(Bucket=bucket)
        server.upload(world.inputs / "ILSVRC2012_val", "s3://images/ILSVRC2012_val")
        yield server.environment
    finally:
        server.stop()
