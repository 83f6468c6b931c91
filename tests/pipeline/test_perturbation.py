"""What an ascent and a replay have in common, and what an ascent does."""

import pickle
from typing import get_type_hints

import pytest
import torch

from attacks.statistics import AdvBNConfig
from pipeline.job import Job
from pipeline.perturbation import Ascent, DecodedBatch, Original, Perturbation
from pipeline.replay import Replay
from pipeline.worker import ready_worker
from sources.decode import load_image


@pytest.fixture
def batch(job: Job) -> DecodedBatch:
    """The first batch of the job."""
    number, indices = next(job.plan.batches_of(0))
    records = [job.records[index] for index in indices]
    images = [load_image(job.source.read(record), record.name, 16) for record in records]
    return DecodedBatch(
        number, indices, [Original(image, record.label, "") for image, record in zip(images, records, strict=True)]
    )


def test_both_answer_the_whole_protocol() -> None:
    names = {name for name in vars(Perturbation) if not name.startswith("_")}
    assert names == {"classes", "rendered", "part", "check_listed", "check_original", "begin"}
    for kind in (Ascent, Replay):
        assert names <= {*vars(kind), *get_type_hints(kind)}


def test_an_ascent_is_the_same_for_every_shard_and_small(job: Job) -> None:
    part = pickle.loads(pickle.dumps(job.part(5))).perturbation
    assert part == job.perturbation == Ascent(attack=job.config.attack, classes=1000)
    assert (part.classes, part.rendered) == (1000, None)
    assert len(pickle.dumps(part)) < 300


def test_without_an_attack_no_step_is_taken(job: Job, batch: DecodedBatch) -> None:
    """As for a shard of which only the reconstructions are missing."""
    networks, ascent = ready_worker(job.requirements), Ascent(attack=AdvBNConfig(steps=2), classes=1000)
    attacked, still = (ascent.begin(networks, batch, attack=attack).result() for attack in (True, False))
    assert (len(attacked.losses_SN), len(still.losses_SN)) == (3, 1)
    assert torch.equal(still.perturbed_N3HW, attacked.reconstructed_N3HW)
    assert not torch.equal(attacked.perturbed_N3HW, attacked.reconstructed_N3HW)
    assert bool((still.delta_mean_C == 1).all())
