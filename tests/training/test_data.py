"""Order, crops and resume depend on seed, epoch and place, and on nothing else."""

from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional, v2

from basics.errors import UserError
from sources.base import ImageRecord
from sources.decode import decode_rgb, load_image
from sources.opening import open_source
from tests.support import image_folder
from training.augment import POLICIES
from training.config import TrainingConfig
from training.data import Mix, TrainingImages, Variation, epoch_batches, evenly_spread, hold_out, training_images
from training.order import Composition, EpochOrder, mixed_seed, steps_per_epoch

SIZE = 32


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return image_folder(tmp_path_factory.mktemp("images") / "source", per_class=6)


def images(folder: Path, *, varied: bool = True, seed: int = 0) -> TrainingImages:
    return TrainingImages(open_source(str(folder)), SIZE, variation=Variation() if varied else None, seed=seed)


def config(**changed: object) -> TrainingConfig:
    values = {"epochs": 3, "batch_size": 4, "lr": 0.1, "image_size": SIZE, **changed}
    return TrainingConfig(**values)  # type: ignore[arg-type]


def batches(folder: Path, settings: TrainingConfig, *, epoch: int = 0, first_step: int = 0) -> list[torch.Tensor]:
    with epoch_batches(images(folder), settings, epoch=epoch, first_step=first_step, rank=0) as found:
        return [image for image, _ in found]


def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return len(one) == len(other) and all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_without_augmentation_images_are_the_decoded_ones(folder: Path) -> None:
    source = open_source(str(folder))
    plain = images(folder, varied=False)
    for index, record in enumerate(source.records):
        image, label = plain[5, index]
        assert torch.equal(image, load_image(source.read(record), record.name, SIZE))
        assert label == record.label


def test_shifts_depend_only_on_seed_epoch_and_index(folder: Path) -> None:
    one, other = images(folder, seed=3), images(folder, seed=3)
    places = [(epoch, index) for epoch in range(2) for index in range(len(one))]
    forward = [one[place][0] for place in places]
    torch.manual_seed(99)
    backward = [other[place][0] for place in reversed(places)][::-1]
    assert same(forward, backward)
    different = images(folder, seed=4)
    changed = sum(not torch.equal(different[place][0], image) for place, image in zip(places, forward, strict=True))
    assert changed > len(places) // 2


def test_epochs_vary_an_image(folder: Path) -> None:
    varied = images(folder)
    assert len({varied[epoch, 0][0].numpy().tobytes() for epoch in range(12)}) > 6


@pytest.mark.parametrize(("variation", "most"), [(Variation(), SIZE // 16), (Variation(translation=1 / 8), SIZE // 8)])
def test_a_variation_is_a_shift_by_at_most_its_share_and_perhaps_a_flip(
    folder: Path, variation: Variation, most: int
) -> None:
    plain = images(folder, varied=False)
    varied = TrainingImages(plain.source, SIZE, variation=variation)
    original = plain[0, 1][0]
    inner = original[:, most:-most, most:-most]
    seen = set()
    for epoch in range(120):
        image = varied[epoch, 1][0]
        places = {
            (top, left, flipped)
            for flipped, turned in enumerate((image, image.flip(-1)))
            for top in range(2 * most + 1)
            for left in range(2 * most + 1)
            if torch.equal(turned[:, top : top + SIZE - 2 * most, left : left + SIZE - 2 * most], inner)
        }
        assert len(places) == 1
        seen |= places
    for axis in (0, 1):
        assert {place[axis] for place in seen} == set(range(2 * most + 1)), "some shifts are never drawn"
    assert {place[2] for place in seen} == {0, 1}


def test_a_shift_of_nothing_leaves_the_flip(folder: Path) -> None:
    plain = images(folder, varied=False)
    varied = TrainingImages(plain.source, SIZE, variation=Variation(translation=0))
    original = plain[0, 1][0]
    for epoch in range(8):
        image = varied[epoch, 1][0]
        assert torch.equal(image, original) or torch.equal(image.flip(-1), original)


@pytest.mark.parametrize("translation", [-0.1, 0.5, float("nan")])
def test_a_translation_that_cannot_be_is_refused(translation: float) -> None:
    with pytest.raises(UserError, match=r"translation is .* of an image's side; give a number from 0 to below 0"):
        Variation(translation=translation)


@pytest.mark.slow
def test_the_order_does_not_depend_on_loader_processes(folder: Path) -> None:
    assert same(batches(folder, config(loaders=0)), batches(folder, config(loaders=2)))


def test_resuming_in_the_middle_of_an_epoch_gives_the_rest(folder: Path) -> None:
    whole = batches(folder, config(), epoch=1)
    assert len(whole) == steps_per_epoch(Composition(own=18), config()) == 4
    assert same(batches(folder, config(), epoch=1, first_step=2), whole[2:])
    assert len(EpochOrder(Composition(own=18), config(), epoch=1, first_step=3, rank=0)) == 1


def test_an_epoch_uses_each_image_at_most_once_and_epochs_differ() -> None:
    orders = [list(EpochOrder(Composition(own=18), config(), epoch=epoch, first_step=0, rank=0)) for epoch in range(2)]
    for epoch, order in enumerate(orders):
        flat = [place for batch in order for place in batch]
        assert len(flat) == len(set(flat)) == 16
        assert {place[0] for place in flat} == {epoch}
        assert {place[1] for place in flat} <= set(range(18))
    assert [place[1] for batch in orders[0] for place in batch] != [place[1] for batch in orders[1] for place in batch]


def test_devices_share_the_batches_of_one() -> None:
    settings = config(devices=2)
    alone = list(EpochOrder(Composition(own=18), config(), epoch=0, first_step=0, rank=0))
    shared = [list(EpochOrder(Composition(own=18), settings, epoch=0, first_step=0, rank=rank)) for rank in range(2)]
    for step, batch in enumerate(alone):
        assert sorted(shared[0][step] + shared[1][step]) == sorted(batch)
        assert len(shared[0][step]) == len(shared[1][step])


def test_fewer_images_than_a_batch_are_one_step() -> None:
    assert steps_per_epoch(Composition(own=3), config()) == 1
    assert steps_per_epoch(Composition(own=8), config()) == 2
    assert steps_per_epoch(Composition(own=11), config()) == 2


def test_seeds_of_different_places_differ() -> None:
    seeds = {mixed_seed(seed, epoch, index) for seed in range(5) for epoch in range(5) for index in range(40)}
    assert len(seeds) == 1000
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert mixed_seed(1, 2) != mixed_seed(2, 1)


def test_one_image_in_twenty_is_held_out_by_seed() -> None:
    records = [ImageRecord(f"{index}.png", 0) for index in range(100)]
    kept, held = hold_out(records, seed=0)
    assert len(held) == 5
    assert sorted([*kept, *held], key=records.index) == records
    assert kept == [record for record in records if record not in held]
    assert hold_out(records, seed=0) == (kept, held)
    assert hold_out(records, seed=1)[1] != held


@pytest.mark.parametrize(("total", "most"), [(10, 1), (10, 3), (10, 9), (50_000, 640), (7, 7), (7, 8), (7, None)])
def test_some_records_are_spread_evenly_and_in_order(total: int, most: int | None) -> None:
    records = [ImageRecord(str(index), 0) for index in range(total)]
    places = [int(record.name) for record in evenly_spread(records, most)]
    assert len(places) == min(total, most or total)
    steps = {later - sooner for sooner, later in pairwise(places)}
    assert places[0] == 0
    assert steps <= {total // len(places), -(-total // len(places))}
    assert total - places[-1] <= -(-total // len(places))


@pytest.mark.parametrize("apart", [True, False])
def test_a_limit_takes_images_of_every_class(folder: Path, apart: bool) -> None:
    source = open_source(str(folder))
    taken, held = training_images(
        source, source if apart else None, config(), limit=9, held_out_limit=6, variation=Variation()
    )
    every = [*taken.records] if apart else [*taken.records, *held.records]
    assert Counter(record.label for record in every) == dict.fromkeys({record.label for record in source.records}, 3)
    assert len(taken) == (9 if apart else 8)
    if apart:
        assert set(Counter(record.label for record in held.records).values()) == {2}
    whole, _ = training_images(source, source, config(), limit=1000, variation=Variation())
    assert list(whole.records) == list(source.records)


@pytest.mark.parametrize(("images", "held"), [(2, 1), (39, 1), (40, 2), (20_000, 1000), (30_000, 1000)])
def test_at_least_one_and_at_most_a_thousand_are_held_out(images: int, held: int) -> None:
    records = [ImageRecord(str(index), 0) for index in range(images)]
    kept, chosen = hold_out(records, seed=0)
    assert (len(kept), len(chosen)) == (images - held, held)


def test_crops_depend_on_seed_epoch_and_place_alone(folder: Path) -> None:
    source = open_source(str(folder))
    cropping = TrainingImages(source, SIZE, variation=Variation(crops=True), seed=3)
    torch.manual_seed(5)
    first = cropping[2, 4][0]
    expected = torch.rand(1)
    torch.manual_seed(5)
    again = TrainingImages(source, SIZE, variation=Variation(crops=True), seed=3)[2, 4][0]
    torch.manual_seed(5)
    assert torch.equal(torch.rand(1), expected), "the global generator was moved"
    assert torch.equal(first, again)
    assert (first.shape, first.dtype) == ((3, SIZE, SIZE), torch.uint8)
    others = [cropping[3, 4][0], TrainingImages(source, SIZE, variation=Variation(crops=True), seed=4)[2, 4][0]]
    assert not any(torch.equal(first, other) for other in others)


def test_a_crop_is_drawn_from_torchs_generator_and_seeds_no_device(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, variation = open_source(str(folder)), Variation(crops=True)
    cropping = TrainingImages(source, SIZE, variation=variation, seed=3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(mixed_seed(3, 2, 4))
        crop = v2.Compose([v2.RandomResizedCrop(SIZE, (variation.smallest, 1.0)), v2.RandomHorizontalFlip()])
        expected = functional.pil_to_tensor(crop(decode_rgb(source.read(source.records[4]), "")))
    seeded: list[int] = []
    for device in (torch.cuda, torch.xpu, torch.mtia):
        monkeypatch.setattr(device, "manual_seed_all", seeded.append)
    assert torch.equal(cropping[2, 4][0], expected)
    assert seeded == []


@pytest.mark.slow
def test_policies_are_applied_and_depend_on_the_place_alone(folder: Path) -> None:
    source = open_source(str(folder))
    for name in POLICIES:
        variation = Variation(crops=True, policies=(name,))
        one, other = (TrainingImages(source, SIZE, variation=variation, seed=3) for _ in range(2))
        plain = TrainingImages(source, SIZE, variation=Variation(crops=True), seed=3)
        places = [(epoch, index) for epoch in range(3) for index in range(len(plain))]
        forward = [one[place][0] for place in places]
        backward = [other[place][0] for place in reversed(places)][::-1]
        assert same(forward, backward), name
        changed = sum(not torch.equal(plain[place][0], image) for place, image in zip(places, forward, strict=True))
        assert changed > len(places) // 2, name


def test_a_second_source_has_its_share_of_every_batch(folder: Path, tmp_path: Path) -> None:
    second = open_source(str(image_folder(tmp_path / "second", per_class=2)))
    first = open_source(str(folder))
    settings = config(batch_size=8, epochs=4)
    mix = Mix(source=second, share=0.25)
    joined, held = training_images(first, first, settings, limit=None, variation=Variation(), mix=mix)
    own, other = len(first.records), len(second.records)
    assert (len(joined), len(held)) == (own + other, own)
    seen: list[int] = []
    for epoch in range(4):
        batches_of_epoch = list(EpochOrder(joined.composition, settings, epoch=epoch, first_step=0, rank=0))
        assert len(batches_of_epoch) == own // 6
        for batch in batches_of_epoch:
            assert sum(index >= own for _, index in batch) == 2
            seen += [index - own for _, index in batch if index >= own]
        mine = [index for batch in batches_of_epoch for _, index in batch if index < own]
        assert len(mine) == len(set(mine))
    # Every pass over the second source takes each of its images once.
    for start in range(0, len(seen) - other + 1, other):
        assert sorted(seen[start : start + other]) == list(range(other))
    resumed = list(EpochOrder(joined.composition, settings, epoch=2, first_step=1, rank=0))
    assert resumed == list(EpochOrder(joined.composition, settings, epoch=2, first_step=0, rank=0))[1:]
    record = second.records[3]
    plain = TrainingImages(joined.source, SIZE, records=joined.records)
    assert torch.equal(plain[0, own + 3][0], load_image(second.read(record), record.name, SIZE))
    assert plain[0, own + 3][1] == record.label


def test_a_mix_that_cannot_be_is_refused(folder: Path, tmp_path: Path) -> None:
    first = open_source(str(folder))
    other = open_source(str(image_folder(tmp_path / "other", classes=("x", "y"))))
    with pytest.raises(UserError, match="give a second source of the same classes"):
        training_images(first, first, config(), limit=None, variation=Variation(), mix=Mix(source=other, share=0.5))
    with pytest.raises(UserError, match="leaves one of the two sources without"):
        training_images(first, first, config(), limit=None, variation=Variation(), mix=Mix(source=first, share=0.1))


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(UserError, match="no image policy 'magic'; give one of autoaugment"):
        Variation(crops=True, policies=("magic",))


@pytest.mark.slow
def test_crops_cover_at_least_their_share(tmp_path: Path) -> None:
    """On a picture whose colour tells the place, the range of colours in a crop tells its area."""
    side = 64
    ramp = np.arange(side, dtype=np.uint8) * 2
    pixels = np.stack(
        [np.tile(ramp, (side, 1)), np.tile(ramp[:, None], (1, side)), np.zeros((side, side), np.uint8)], 2
    )
    (tmp_path / "a").mkdir()
    Image.fromarray(pixels).save(tmp_path / "a/0.png")
    source = open_source(str(tmp_path))
    for smallest in (0.08, 0.7):
        cropping = TrainingImages(source, SIZE, variation=Variation(crops=True, smallest=smallest))
        areas = []
        for epoch in range(60):
            image = cropping[epoch, 0][0].int()
            spans = [int(image[channel].max() - image[channel].min()) / 2 + 1 for channel in (0, 1)]
            areas.append(spans[0] * spans[1] / side**2)
        # Antialiasing narrows the range by a pixel or so at each end.
        assert min(areas) > 0.85 * smallest
        assert (min(areas) < 0.3) == (smallest < 0.3)
    with pytest.raises(UserError, match=r"smallest crop is 1\.5"):
        Variation(crops=True, smallest=1.5)
