"""Batches passed in parts: the results of the whole batch, and data sets that were begun before there were parts."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from attacks.statistics import AdvBNConfig
from basics.compute import choose_compute
from basics.errors import UserError
from commands.imagenet_advbn import _CONFIG_FIELDS, _config
from decoders.autoencoder import load_autoencoder
from networks.classifiers import load_classifier
from pipeline.batch_arithmetic import PerturbedBatch, Perturber, Shifter
from pipeline.config import GenerationConfig
from pipeline.drawn_networks import DRAWN_IMAGE_SIZE, drawn_networks
from pipeline.job import prepare, products_of
from pipeline.transfers import Arrivals
from pipeline.worker import ready_worker
from sources.decode import load_image
from sources.drawn.source import SHAPES, DrawnSource
from tests.pipeline.world import NAME, SHARDS, World, tar_of, without_addresses
from tests.support import advbn_gen, folder_bytes, refused

LIKE_THREADS = 0.99
"""Share of the pixels within one grey level, as demanded of two runs with other numbers of threads."""


def recorded(folder: Path) -> dict[str, object]:
    """The arithmetic in a manifest."""
    arithmetic: dict[str, object] = json.loads((folder / "manifest.json").read_text())["identity"]["arithmetic"]
    return arithmetic


@pytest.fixture(scope="module")
def drawn() -> tuple[Tensor, Tensor]:
    """A batch of 12 drawings, evenly spread over the classes: 8-bit images and their labels."""
    source = DrawnSource("val", DRAWN_IMAGE_SIZE)
    records = source.records[:: len(source.records) // 12][:12]
    images = [load_image(source.read(record), record.name, DRAWN_IMAGE_SIZE) for record in records]
    return torch.stack(images), torch.tensor([record.label for record in records])


def perturbed(
    batch: tuple[Tensor, Tensor], precision: str, micro_batch: int | None, *, threads: int = 1
) -> PerturbedBatch:
    """The drawn world's networks on a batch."""
    own = drawn_networks("vgg")
    torch.set_num_threads(threads)
    shifter = Shifter(load_autoencoder(own.autoencoder).module, choose_compute("cpu", precision), micro_batch)
    perturber = Perturber(shifter, load_classifier(None, str(own.classifier), len(SHAPES)).module)
    return perturber(*batch, AdvBNConfig())


@pytest.mark.slow
@pytest.mark.parametrize("micro_batch", [1, 5])
def test_parts_change_no_pixel_in_double_precision(drawn: tuple[Tensor, Tensor], micro_batch: int) -> None:
    whole, parts = (perturbed(drawn, "fp64", size) for size in (None, micro_batch))
    for name in ("perturbed_N3HW", "reconstructed_N3HW", "clean_N", "reconstructed_N", "adversarial_N"):
        assert torch.equal(getattr(parts, name), getattr(whole, name)), name
    # Multipliers are sums of steps, so the same signs give the same bits.
    assert torch.equal(parts.delta_mean_C, whole.delta_mean_C)
    assert torch.equal(parts.delta_std_C, whole.delta_std_C)
    torch.testing.assert_close(parts.losses_SN, whole.losses_SN, rtol=1e-9, atol=1e-12)
    assert not torch.equal(whole.perturbed_N3HW, whole.reconstructed_N3HW)


@pytest.mark.slow
def test_parts_are_as_near_to_the_whole_in_single_precision_as_other_threads(drawn: tuple[Tensor, Tensor]) -> None:
    whole, parts, threads = (
        perturbed(drawn, "fp32", size, threads=count) for size, count in ((None, 1), (5, 1), (None, 2))
    )
    for other in (parts, threads):
        near = (other.perturbed_N3HW.int() - whole.perturbed_N3HW.int()).abs() <= 1
        assert float(near.float().mean()) >= LIKE_THREADS


def test_the_statistics_are_those_of_the_whole_batch(drawn: tuple[Tensor, Tensor]) -> None:
    """What would be wrong if each part were a batch of its own: its multipliers are not those of the whole batch."""
    image, label = drawn
    whole = perturbed(drawn, "fp64", 6)
    alone = perturbed((image[:6], label[:6]), "fp64", None)
    assert not torch.equal(alone.delta_std_C, whole.delta_std_C)


def test_what_auto_is_depends_on_size_and_kind_of_device_alone() -> None:
    config = GenerationConfig(encoder="vgg", source=None, autoencoder=None)
    assert config.micro_batch_on("cpu") == 8
    assert config.micro_batch_on("cuda") is None
    assert replace(config, image_size=512).micro_batch_on("cpu") == 2
    assert replace(config, image_size=2048).micro_batch_on("cpu") == 1
    assert replace(config, image_size=48).micro_batch_on("cpu") is None, "a batch of 32 small images is cut"
    assert replace(config, micro_batch=3).micro_batch_on("cuda") == 3
    assert replace(config, micro_batch=32).micro_batch_on("cpu") is None
    assert replace(config, micro_batch=None).micro_batch_on("cpu") is None
    with pytest.raises(UserError, match="micro-batch is 0"):
        replace(config, micro_batch=0)


def test_a_word_that_is_no_size_is_refused(world: World, tmp_path: Path) -> None:
    said = refused(*world.words(tmp_path / "out", micro_batch="some"))
    assert "'some' is no number of images; give one such as 4, or auto." in said


@pytest.mark.slow
def test_a_run_in_parts_is_recorded_resumed_rendered_and_repaired_as_such(
    world: World, finished: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    half = world.half()
    assert half.make(out, micro_batch=3).code == 0
    assert recorded(out)["micro_batch"] == 3
    assert "micro_batch" not in recorded(finished)
    whole = folder_bytes(out)
    # The default goes on with what was begun, another number does not.
    tar_of(out, 1).unlink()
    assert "arithmetic.micro_batch: 3 -> 2" in refused(*half.words(out, micro_batch=2))
    assert half.make(out, "--json").result["made"] == 1
    assert folder_bytes(out) == whole
    tar_of(out, 2).write_bytes(b"")
    assert advbn_gen("verify", out, "--repair").code == 0
    assert folder_bytes(out) == whole
    rendered = advbn_gen(
        "render", out / "perturbations.h5", "--source", world.source, "--autoencoder", world.autoencoder,
        "--out", tmp_path / "rendered", "--json",
    )  # fmt: skip
    assert rendered.code == 0, rendered.err
    assert rendered.result["ok"]
    assert tar_of(tmp_path / "rendered", 3).read_bytes() == tar_of(out, 3).read_bytes()


@pytest.fixture(scope="module")
def earlier(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set as an earlier version made it: of revision 1 and whole batches, which it did not record."""
    out = tmp_path_factory.mktemp("earlier") / NAME
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("commands.imagenet_advbn._CONFIG_FIELDS", (*_CONFIG_FIELDS, "revision"))
        patch.setattr("commands.imagenet_advbn._config", lambda options: _config({**options, "revision": 1}))
        done = world.make(out)
    assert done.code == 0, done.err
    return out


@pytest.fixture
def auto_cuts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `auto` cut batches of 4 small images, as it does batches of 32 images of 256 px."""
    monkeypatch.setattr("pipeline.config._AUTO_PIXELS", {"cpu": 2 * 16**2})


@pytest.mark.slow
@pytest.mark.usefixtures("auto_cuts")
@pytest.mark.parametrize("lost", [None, "manifest.json", "damaged"])
def test_a_data_set_of_whole_batches_is_gone_on_with_as_it_was_begun(
    world: World, earlier: Path, tmp_path: Path, lost: str | None
) -> None:
    """Also where its manifest is lost or damaged."""
    copied = Path(shutil.copytree(earlier, tmp_path / "copied"))
    assert not {"micro_batch", "revision"} & recorded(copied).keys()
    tar_of(copied, 2).unlink()
    if lost == "damaged":
        (copied / "manifest.json").write_text("{")
    elif lost is not None:
        (copied / lost).unlink()
    outcome = world.make(copied, "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.result["made"] == 1
    assert ("was begun by an earlier version of this program" in outcome.err) == (lost is None)
    assert without_addresses(folder_bytes(copied)) == without_addresses(folder_bytes(earlier))
    assert "arithmetic.micro_batch: (absent) -> 2" in refused(*world.words(copied, micro_batch=2))


@pytest.mark.usefixtures("auto_cuts")
def test_a_new_data_set_and_an_overwritten_one_are_made_in_parts(world: World, copied: Path, tmp_path: Path) -> None:
    half = world.half()
    assert half.make(tmp_path / "new").code == 0
    assert half.make(copied, "--overwrite").code == 0
    assert recorded(tmp_path / "new")["micro_batch"] == recorded(copied)["micro_batch"] == 2


@pytest.mark.usefixtures("auto_cuts")
def test_marks_of_others_are_refused_as_before(world: World, copied: Path) -> None:
    (copied / "manifest.json").unlink()
    said = refused(*world.words(copied, steps=1))
    assert "files that are not this data set's" in said


@pytest.mark.slow
def test_batches_that_are_begun_ahead_are_the_same(
    world: World, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Shifter, "ahead", 2)
    assert world.make(tmp_path / "out", batches_per_shard=3).code == 0
    monkeypatch.setattr(Shifter, "ahead", 0)
    assert world.make(tmp_path / "serial", batches_per_shard=3).code == 0
    assert folder_bytes(tmp_path / "out") == folder_bytes(tmp_path / "serial")
    assert len(list(finished.glob("*.tar"))) == SHARDS


class LateArrivals(Arrivals):
    """Copies as those of a CUDA device: garbage until they have been waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.late: list[tuple[Tensor, Tensor]] = []

    def to_host(self, value: Tensor) -> Tensor:
        host = torch.full_like(value, 77)
        self.late.append((host, value.clone()))
        return host

    def wait(self) -> None:
        for host, value in self.late:
            host.copy_(value)


@pytest.mark.slow
def test_nothing_is_read_before_it_has_arrived(
    world: World, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.batch_arithmetic.Arrivals", LateArrivals)
    monkeypatch.setattr(Shifter, "ahead", 1)
    assert world.make(tmp_path / "out", "--reconstructed").code == 0
    assert folder_bytes(tmp_path / "out") == folder_bytes(finished)


def test_a_revision_of_a_later_version_is_refused() -> None:
    with pytest.raises(UserError, match="revision 3 of the arithmetic, and this version of advbn-gen knows 1 to 2"):
        GenerationConfig(encoder="vgg", source=None, autoencoder=None, revision=3)


def test_networks_are_loaded_for_the_micro_batch_of_the_run(world: World, tmp_path: Path) -> None:
    config = GenerationConfig(
        encoder="vgg", source=str(world.source), autoencoder=str(world.autoencoder), image_size=16, limit=8,
        classifier_weights=str(world.classifier), batch_size=4, threads=1, device="cpu", micro_batch=3,
    )  # fmt: skip
    job = prepare(config, products_of(config, tmp_path / "out", "x"))
    assert ready_worker(job.requirements).shifter.micro_batch == 3


def test_a_folder_that_cannot_be_reached_is_refused(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(_: object) -> None:
        raise ConnectionError(111, "Connection refused")

    monkeypatch.setattr("pipeline.claim.read_intact_manifest", unreachable)
    assert "cannot be reached (Connection refused); check it." in refused(*world.words(tmp_path / "out"))
