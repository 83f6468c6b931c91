"""The plan against a loop that deals images out one by one."""

import pytest

from basics.errors import UserError
from pipeline.dataset.plan import Plan
from tests.support import dice_of


def dealt(images: int, batch_size: int, batches_per_shard: int) -> list[list[list[int]]]:
    """Shards of batches of images, one image after the other."""
    shards: list[list[list[int]]] = []
    for image in range(images):
        if image % (batch_size * batches_per_shard) == 0:
            shards.append([])
        if image % batch_size == 0:
            shards[-1].append([])
        shards[-1][-1].append(image)
    return shards


def test_imagenets_validation_set_has_the_published_numbers() -> None:
    plan = Plan(images=50_000)
    assert (plan.batches, plan.shards) == (1563, 32)
    assert [plan.samples_in(shard) for shard in range(32)] == [1568] * 31 + [1392]
    number, images = list(plan.batches_of(31))[-1]
    assert (number, images) == (1562, range(49_984, 50_000))


def test_any_plan_deals_images_out_in_order() -> None:
    dice = dice_of(0)
    for _ in range(300):
        images, batch_size, batches_per_shard = dice.randint(1, 200), dice.randint(1, 40), dice.randint(1, 9)
        plan = Plan(images=images, batch_size=batch_size, batches_per_shard=batches_per_shard)
        expected = dealt(images, batch_size, batches_per_shard)
        found = [[list(batch) for _, batch in plan.batches_of(shard)] for shard in range(plan.shards)]
        assert found == expected
        numbers = [number for shard in range(plan.shards) for number, _ in plan.batches_of(shard)]
        assert numbers == list(range(plan.batches))
        assert [plan.samples_in(shard) for shard in range(plan.shards)] == [sum(map(len, shard)) for shard in expected]


@pytest.mark.parametrize("name", ["batch_size", "batches_per_shard"])
@pytest.mark.parametrize("value", [0, -3])
def test_sizes_below_one_are_refused(name: str, value: int) -> None:
    with pytest.raises(UserError, match=f"{name.replace('_', ' ')} is {value}"):
        Plan(images=10, **{name: value})
