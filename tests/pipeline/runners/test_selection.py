"""Which runner a run has."""

from pathlib import Path

from tests.pipeline.world import World
from tests.support import refused


def test_workers_of_this_machine_and_a_scheduler_s_are_not_mixed(world: World, tmp_path: Path) -> None:
    message = refused(*world.words(tmp_path / "out", workers=2, scheduler="tcp://127.0.0.1:1"))
    assert "give one of the two" in message
    assert not (tmp_path / "out").exists()
