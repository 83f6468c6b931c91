"""How tests are shared out between the processes of pytest-xdist.

The tests of a file stay together, so that what they share is made once. Tests of whole clusters stay together, too:
two clusters at once would need more processes than there are cores, and those tests watch the clock.
"""

from collections.abc import Sequence
from pathlib import PurePath

import pytest
from xdist.scheduler import LoadFileScheduling

CLUSTERS = PurePath("tests/pipeline/runners")


class ByFile(LoadFileScheduling):  # type: ignore[misc]  # xdist has no types
    """Gives each process a file at a time, in the order of `slow_first`."""

    def __init__(self, config: pytest.Config, log: object) -> None:
        super().__init__(config, log)
        # By default those with the most tests come first.
        config.option.loadscopereorder = False

    def _split_scope(self, nodeid: str) -> str:
        return group(nodeid)


def group(nodeid: str) -> str:
    """Return the name of a test's group: its file, or the folder of the tests of clusters."""
    path = PurePath(nodeid.partition("::")[0])
    return str(CLUSTERS if path.is_relative_to(CLUSTERS) else path)


def slow_first(items: Sequence[pytest.Item]) -> list[pytest.Item]:
    """Return the tests in the order of their groups, those with the most slow ones first.

    A long group that comes last would leave the other processes without work.
    """
    slow: dict[str, int] = {}
    for item in items:
        name = group(item.nodeid)
        slow[name] = slow.get(name, 0) + (item.get_closest_marker("slow") is not None)
    return sorted(items, key=lambda item: (-slow[group(item.nodeid)], group(item.nodeid)))
