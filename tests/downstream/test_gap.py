"""What a report gathers, and what it refuses."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image

from basics.errors import UserError
from basics.files import read_sealed
from downstream import gap as gathering
from downstream.gap import GapRequest, common_keys, gather
from downstream.originals import require_made_of
from downstream.quality import quality as measure_really
from downstream.testset import TestSet, open_test_set
from sources.base import ImageRecord
from tests.pipeline.world import forge_json
from tests.support import image_folder
from tests.trio import Trio


def request(trio: Trio, out: Path, **changed: Any) -> GapRequest:
    values: dict[str, Any] = {
        "original": str(trio.world.source), "reconstructed": str(trio.reconstructed), "advbn": str(trio.advbn),
        "models": {"a": str(trio.attacked)}, "out": out, "common": True, "device": "cpu", "gallery": 7,
    }  # fmt: skip
    return GapRequest(**{**values, **changed})


@pytest.mark.slow
def test_everything_is_in_the_same_order(trio: Trio, tmp_path: Path) -> None:
    inputs, samples = gather(request(trio, tmp_path / "out"))
    with h5py.File(trio.advbn / "perturbations.h5") as ledger:
        keys = [key.decode() for key in ledger["samples/key"]]
        reconstructed = ledger["samples/reconstructed_prediction"][()]
        labels = ledger["samples/label"][()]
    assert list(inputs.keys) == keys
    assert inputs.label_N.tolist() == labels.tolist()
    for role in ("original", "reconstructed", "advbn"):
        assert len(inputs.scored[role, "a"].predictions["all"].classes_NK) == 48
    # The model under attack sees whole 32 px images there and upscaled crops here, so only the order is compared.
    assert len(reconstructed) == 48
    assert len(samples) == 7
    assert [sample.index for sample in samples] == sorted({sample.index for sample in samples})
    assert all(sample.key == keys[sample.index] for sample in samples)
    assert {name for name, values in inputs.quality.items() if len(values) == 48} == {"psnr", "ssim"}
    assert inputs.class_names[0] == "tench"


@pytest.mark.slow
def test_the_order_of_the_originals_does_not_matter(
    trio: Trio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight, _ = gather(request(trio, tmp_path / "straight"))
    opened = open_test_set

    def turned(name: str, *more: Any, **options: Any) -> TestSet:
        found = opened(name, *more, **options)
        return found.in_order(list(reversed(found.keys))) if name == "original" else found

    monkeypatch.setattr(gathering, "open_test_set", turned)
    backwards, _ = gather(request(trio, tmp_path / "backwards"))
    assert list(backwards.keys) == list(reversed(straight.keys))
    for role in ("original", "reconstructed", "advbn"):
        one, other = (each.scored[role, "a"].predictions["all"].classes_NK for each in (straight, backwards))
        assert np.array_equal(one, other[::-1])
    assert np.allclose(straight.quality["psnr"], backwards.quality["psnr"][::-1])


@pytest.mark.slow
def test_losses_of_the_gallery_are_those_of_the_shards(trio: Trio, tmp_path: Path) -> None:
    import tarfile

    _, samples = gather(request(trio, tmp_path / "out", gallery=100))
    losses = {}
    for tar in trio.advbn.glob("*.tar"):
        with tarfile.open(tar) as file:
            for member in file:
                if member.name.endswith(".json"):
                    facts = json.loads(file.extractfile(member).read())  # type: ignore[union-attr]
                    losses[facts["key"]] = facts["losses"]
    assert {sample.key: sample.losses for sample in samples} == losses


@pytest.mark.slow
def test_quality_is_measured_once(trio: Trio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = gather(request(trio, tmp_path / "out"))
    monkeypatch.setattr(gathering, "quality", None)
    again, _ = gather(request(trio, tmp_path / "out"))
    assert np.array_equal(first.quality["psnr"], again.quality["psnr"])


def test_missing_samples_are_named_and_counted(trio: Trio, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"3 of original are not in all, such as \w+, .*48 in common.*--common"):
        gather(request(trio, tmp_path / "out", common=False))
    assert not (tmp_path / "out").exists()


def test_nothing_in_common_is_refused(trio: Trio, tmp_path: Path) -> None:
    other = image_folder(tmp_path / "other", classes=("n02119789",))
    with pytest.raises(UserError, match=r"no sample in common \(original 5, reconstructed 48, advbn 48\)"):
        gather(request(trio, tmp_path / "out", original=str(other)))


def test_labels_that_contradict_are_refused(trio: Trio) -> None:
    made = open_test_set("advbn", str(trio.advbn))
    records = [ImageRecord(record.name, 7) for record in made.records]
    with pytest.raises(UserError, match="has the label 0 in advbn and 7 in other"):
        common_keys({"advbn": made, "other": replace(made, records=records)}, refuse_others=True)


@pytest.mark.parametrize(("role", "other"), [("advbn", "reconstructed"), ("reconstructed", "advbn")])
def test_the_two_data_sets_must_not_be_swapped(trio: Trio, tmp_path: Path, role: str, other: str) -> None:
    with pytest.raises(UserError, match=f"--{role} .* is no "):
        gather(request(trio, tmp_path / "out", **{role: str(getattr(trio, other))}))


def test_other_shards_are_no_data_set_of_ours(trio: Trio, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--advbn .* is no perturbed data set"):
        gather(request(trio, tmp_path / "out", advbn=str(trio.world.source)))


def test_two_autoencoders_are_refused(trio: Trio, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(trio.reconstructed, tmp_path / "copied"))
    identity = read_sealed(copied / "manifest.json")["identity"]
    identity["autoencoder"]["sha256"] = "0" * 64
    forge_json(copied / "manifest.json", identity=identity)
    with pytest.raises(UserError, match="two autoencoders"):
        gather(request(trio, tmp_path / "out", reconstructed=str(copied)))


def test_a_damaged_ledger_is_refused(trio: Trio, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(trio.advbn, tmp_path / "copied"))
    ledger = copied / "perturbations.h5"
    ledger.write_bytes(ledger.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"perturbations\.h5 is damaged"):
        gather(request(trio, tmp_path / "out", advbn=str(copied)))


@pytest.mark.parametrize(
    ("changed", "message"),
    [({"gallery": 0}, "--gallery is 0"), ({"published": {"x": "AdvBN"}}, "names the model x, which is none of a")],
)
def test_impossible_requests_are_refused(trio: Trio, tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        request(trio, tmp_path, **changed)


@pytest.mark.slow
def test_the_classes_that_are_here_are_those_of_the_compared_samples(trio: Trio, tmp_path: Path) -> None:
    """The originals have three classes, the data sets the first two of them."""
    folders = {name: tmp_path / name for name in ("imagenet-advbn-vgg", "imagenet-reconstructed-vgg")}
    assert trio.world.make(folders["imagenet-advbn-vgg"], "--reconstructed", image_size=32, limit=20).code == 0
    inputs, _ = gather(
        request(
            trio, tmp_path / "out", advbn=str(folders["imagenet-advbn-vgg"]),
            reconstructed=str(folders["imagenet-reconstructed-vgg"]),
        )
    )  # fmt: skip
    present = sorted(set(inputs.label_N.tolist()))
    assert len(present) == 2
    for role in ("original", "reconstructed", "advbn"):
        scored = inputs.scored[role, "a"]
        assert set(scored.predictions["present"].classes_NK.ravel().tolist()) == set(present)
        assert scored.row["present"]["classes"] == 2
        # Counted again: the better of the two classes among the five best of all, where they are among them.
        for own, every in zip(
            scored.predictions["present"].classes_NK, scored.predictions["all"].classes_NK, strict=True
        ):
            seen = [each for each in every.tolist() if each in present]
            assert own.tolist()[: len(seen)] == seen


@pytest.mark.slow
def test_two_image_sizes_are_refused(trio: Trio, tmp_path: Path) -> None:
    assert trio.world.make(tmp_path / "imagenet-advbn-vgg", "--reconstructed", image_size=16).code == 0
    other = tmp_path / "imagenet-reconstructed-vgg"
    with pytest.raises(UserError, match="two image sizes"):
        gather(request(trio, tmp_path / "out", reconstructed=str(other)))


@pytest.fixture
def originals(trio: Trio, tmp_path: Path) -> Path:
    """A copy of the originals, which a test may change."""
    return Path(shutil.copytree(trio.world.source, tmp_path / "source"))


def key_of_some(trio: Trio, number: int) -> str:
    return open_test_set("advbn", str(trio.advbn)).keys[number]


def make_anew(originals: Path, key: str) -> None:
    """Encode one original again: its pixels look the same."""
    (path,) = originals.rglob(f"{key}.JPEG")
    Image.open(path).save(path, quality=80)


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 30, 47])
def test_other_pixels_under_the_right_name_are_refused_before_work(
    trio: Trio, tmp_path: Path, originals: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = key_of_some(trio, number)
    make_anew(originals, key)
    monkeypatch.setattr(gathering, "score", None)
    with pytest.raises(UserError, match=rf"original \S*{key}\.JPEG in .* is not the file .* encoded or resized anew"):
        gather(request(trio, tmp_path / "out", original=str(originals)))
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_originals_that_no_sample_is_made_of_may_change(trio: Trio, tmp_path: Path, originals: Path) -> None:
    made = set(open_test_set("advbn", str(trio.advbn)).keys)
    others = [path for path in originals.rglob("*.JPEG") if path.stem not in made]
    assert others
    for path in others:
        path.write_bytes(b"broken")
    gather(request(trio, tmp_path / "out", original=str(originals)))


@pytest.mark.slow
def test_reconstructions_of_other_originals_are_refused(trio: Trio, tmp_path: Path, originals: Path) -> None:
    """With the same autoencoder, under the same names."""
    key = key_of_some(trio, 5)
    make_anew(originals, key)
    world = replace(trio.world, source=originals)
    assert world.make(tmp_path / "imagenet-advbn-vgg", "--reconstructed", image_size=32).code == 0
    other = tmp_path / "imagenet-reconstructed-vgg"
    with pytest.raises(UserError, match=rf"sample {key} of {other} was made of another original"):
        gather(request(trio, tmp_path / "out", reconstructed=str(other)))


@pytest.mark.slow
def test_unchanged_originals_are_compared_once(
    trio: Trio, tmp_path: Path, originals: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[int] = []
    really = require_made_of

    def counting(original: TestSet, *more: Any) -> None:
        compared.append(len(original.records))
        really(original, *more)

    monkeypatch.setattr(gathering, "require_made_of", counting)
    for _ in range(2):
        gather(request(trio, tmp_path / "out", original=str(originals)))
    assert compared == [48]
    # Touched, they are compared again; the measures, too, are taken anew.
    for path in originals.rglob("*.JPEG"):
        path.write_bytes(path.read_bytes())
    gather(request(trio, tmp_path / "out", original=str(originals)))
    assert compared == [48, 48]
    gather(request(trio, tmp_path / "out", original=str(originals), overwrite=True))
    assert compared == [48, 48, 48]
    make_anew(originals, key_of_some(trio, 3))
    with pytest.raises(UserError, match="is not the file"):
        gather(request(trio, tmp_path / "out", original=str(originals)))


@pytest.mark.slow
def test_again_measures_quality_anew(trio: Trio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[Any] = []
    really = measure_really

    def quality(*more: Any, **options: Any) -> dict[str, Any]:
        measured.append(more)
        return really(*more, **options)

    monkeypatch.setattr(gathering, "quality", quality)
    for overwrite in (False, False, True):
        gather(request(trio, tmp_path / "out", overwrite=overwrite))
    assert len(measured) == 2
