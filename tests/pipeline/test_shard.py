"""Making a shard needs its plan and what is ready, and nothing of the job that they come from."""

import pytest

from tests.pipeline.dataset.test_independence import loaded_by


@pytest.mark.slow
def test_making_a_shard_does_not_load_the_job() -> None:
    loaded = loaded_by("pipeline.shard")
    assert "pipeline.worker" in loaded
    assert not loaded & {f"pipeline.{name}" for name in ("job", "generate", "render", "replay", "run", "runners")}
