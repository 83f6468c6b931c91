"""`advbn-gen render`: a data set again from its ledger, in this process."""

import io
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from basics.files import digest_json
from decoders.autoencoder import load_autoencoder
from pipeline.dataset.ledger import read_ledger, write_ledger
from pipeline.dataset.shard_file import encode_png
from pipeline.render import RenderRequest, render_job
from pipeline.renderable import read_renderable
from pipeline.replay import Replay
from sources.decode import load_image
from tests.pipeline.world import (
    BATCH,
    IMAGES,
    NAME,
    SHARDS,
    World,
    broken_image,
    members,
    sample_metadata,
    tar_of,
    without_addresses,
)
from tests.support import Outcome, advbn_gen, folder_bytes, refused, tiny_autoencoder

pytestmark = pytest.mark.slow

LEDGER = "perturbations.h5"
HALF = f"{NAME}-scale-0.5"


def words(ledger: Path, world: World, out: Path, *more: object, **changed: object) -> list[object]:
    options = {"source": world.source, "autoencoder": world.autoencoder, "out": out} | changed
    flat = [word for name, value in options.items() for word in (f"--{name}", value)]
    return ["render", ledger, *flat, *more]


def render(ledger: Path, world: World, out: Path, *more: object, **changed: object) -> Outcome:
    return advbn_gen(*words(ledger, world, out, *more, **changed))


@pytest.fixture
def ledger(finished: Path, tmp_path: Path) -> Path:
    """The ledger alone, as it is published."""
    return Path(shutil.copy(finished / LEDGER, tmp_path / "published.h5"))


@pytest.fixture(scope="module")
def scaled(finished: Path, world: World, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Data sets rendered at other scales; tests must not change them."""
    parent = tmp_path_factory.mktemp("scaled")
    for scale in ("0", "0.5", "1.5"):
        done = render(finished / LEDGER, world, parent / scale, "--scale", scale)
        assert done.code == 0, done.err
    return {path.name: path for path in parent.iterdir()}


def pixels(folder: Path, name: str) -> torch.Tensor:
    """All images of a data set, (N, H, W, 3), as whole numbers."""
    contents = [members(tar_of(folder, shard, name)) for shard in range(SHARDS)]
    pngs = [value for content in contents for member, value in content.items() if member.endswith(".png")]
    return torch.stack([torch.from_numpy(np.array(Image.open(io.BytesIO(png)))) for png in pngs]).int()


def test_every_byte_of_the_original_run_comes_back(ledger: Path, finished: Path, world: World, tmp_path: Path) -> None:
    done = render(ledger, world, tmp_path / "out", "--manifest", finished / "manifest.json", "--json")
    assert done.code == 0, done.err
    made, original = folder_bytes(tmp_path / "out"), folder_bytes(finished)
    assert made.keys() == original.keys()
    assert {name for name in made if made[name] != original[name]} == {"manifest.json"}
    manifest, before = (json.loads(content["manifest.json"]) for content in (made, original))
    changed = {name for name in manifest if manifest[name] != before[name]}
    assert changed == {"config", "rendered", "sha256_of_the_rest"}
    assert (manifest["rendered"]["scale"], before["rendered"]) == (1.0, None)
    result = done.result
    assert (result["images"], result["shards"], result["made"], result["scale"]) == (IMAGES, SHARDS, SHARDS, 1.0)
    assert (result["bytes_promised"], result["bytes_equal"], result["differing"]) == (True, True, [])
    assert (result["pixel_mean_difference"], result["tolerance"], result["ok"]) == (0.0, 0.5, True)


def test_the_manifest_beside_the_ledger_is_taken(finished: Path, ledger: Path, world: World, tmp_path: Path) -> None:
    beside = render(finished / LEDGER, world, tmp_path / "beside", "--json").result
    alone = render(ledger, world, tmp_path / "alone", "--json").result
    assert (beside["bytes_equal"], alone["bytes_equal"]) == (True, None)
    assert (beside["ok"], alone["ok"]) == (True, True)


def test_the_output_says_what_was_compared(finished: Path, ledger: Path, world: World, tmp_path: Path) -> None:
    said = render(finished / LEDGER, world, tmp_path / "beside").out
    assert "48 images in 12 shards (12 made now" in said
    assert "bytes: equal to the manifest's" in said
    assert "0 of 255 grey levels (tolerance 0.5)" in said
    assert "not compared (no manifest)" in render(ledger, world, tmp_path / "alone").out
    assert "not compared (scale 0.5)" in render(ledger, world, tmp_path / "half", "--scale", 0.5).out


def test_no_classifier_is_needed(ledger: Path, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr("pipeline.worker.load_with_weights", none)
    assert render(ledger, world, tmp_path / "out").code == 0


def test_the_drawn_world_needs_no_paths(tmp_path: Path, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ADVBN_SOURCE", raising=False)
    made = advbn_gen(
        "imagenet-advbn", "--encoder", "vgg", "--autoencoder", world.autoencoder, "--classifier-weights", "seed:0",
        "--classifier", "squeezenet1_1", "--image-size", 32, "--limit", 8, "--batch-size", 4, "--steps", 1,
        "--threads", 1, "--out", tmp_path / "drawn",
    )  # fmt: skip
    assert made.code == 0, made.err
    ledger = tmp_path / "drawn" / LEDGER
    done = advbn_gen("render", ledger, "--autoencoder", world.autoencoder, "--out", tmp_path / "out", "--json")
    assert done.result["bytes_equal"] is True
    assert list(done.result["folders"]) == ["sample-advbn-vgg"]


def test_scale_0_is_the_reconstruction(scaled: dict[str, Path], world: World, tmp_path: Path) -> None:
    together = tmp_path / NAME
    assert world.make(together, "--reconstructed").code == 0
    beside = tmp_path / NAME.replace("advbn", "reconstructed")
    assert beside.is_dir()
    for shard in range(SHARDS):
        # The same members with the same content, .json included.
        made = members(tar_of(scaled["0"], shard, f"{NAME}-scale-0"))
        assert made == members(tar_of(beside, shard, beside.name))


def test_scale_half_equals_a_plain_computation(scaled: dict[str, Path], finished: Path, world: World) -> None:
    """The shift in float64 as the paper writes it, for one batch in the middle."""
    number = 5
    with h5py.File(finished / LEDGER) as file:
        delta_mean, delta_std = (
            torch.from_numpy(0.5 * (file[name][number] - 1) + 1).view(1, -1, 1, 1)
            for name in ("delta_mean", "delta_std")
        )
        names = file["samples/source"].asstr()[number * BATCH : (number + 1) * BATCH]
    module = load_autoencoder(world.autoencoder).module.double()
    image = torch.stack([load_image((world.source / name).read_bytes(), name, 16) for name in names]) / 255
    with torch.no_grad():
        feat = module.encoder(image.double())
        mean = feat.mean(dim=(0, 2, 3), keepdim=True)
        decoded = module.decoder(torch.relu(delta_std * (feat - mean) + delta_mean * mean))
    expected = (decoded * 255 + 0.5).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).int()
    found = pixels(scaled["0.5"], HALF)[number * BATCH : (number + 1) * BATCH]
    assert (found - expected).abs().max() <= 1
    assert (found - expected).abs().double().mean() < 0.01
    assert (found - pixels(finished, NAME)[number * BATCH : (number + 1) * BATCH]).abs().max() > 5


def test_stronger_scales_go_further_from_the_reconstruction(scaled: dict[str, Path], finished: Path) -> None:
    still = pixels(scaled["0"], f"{NAME}-scale-0")
    sets = [pixels(scaled["0.5"], HALF), pixels(finished, NAME), pixels(scaled["1.5"], f"{NAME}-scale-1.5")]
    away = [float((image - still).abs().double().mean()) for image in sets]
    assert 0 < away[0] < away[1] < away[2]


def test_metadata_of_samples_at_other_scales(scaled: dict[str, Path], finished: Path) -> None:
    original = sample_metadata(finished)
    for scale, folder in scaled.items():
        manifest = sample_metadata(folder)
        assert len(manifest) == IMAGES
        for sample, before in zip(manifest, original, strict=True):
            prediction = before["reconstructed_prediction"] if scale == "0" else -1
            changed = {"adversarial_prediction": prediction, "losses": before["losses"][:1]}
            assert sample == before | changed
            assert {key: type(value) for key, value in sample.items()} == {k: type(v) for k, v in before.items()}


def test_manifest_card_and_ledger_at_another_scale(scaled: dict[str, Path], finished: Path) -> None:
    manifest, before = (json.loads((folder / "manifest.json").read_text()) for folder in (scaled["0.5"], finished))
    assert manifest["name"] == HALF
    assert manifest["identity"] == before["identity"] | {"scale": 0.5}
    assert manifest["fingerprint"] == digest_json(manifest["identity"])
    assert manifest["rendered"]["scale"] == 0.5
    assert manifest["rendered"]["ledger"] == str(finished / LEDGER)
    assert manifest["rendered"]["ledger_sha256"] == before["ledger_sha256"]
    assert manifest["top1"] == {name: before["top1"][name] for name in ("clean", "reconstructed")}
    card = (scaled["0.5"] / "README.md").read_text()
    assert "not asked" in card
    assert "scaled by 0.5" in card
    with h5py.File(scaled["0.5"] / LEDGER) as file, h5py.File(finished / LEDGER) as original:
        assert np.array_equal(file["delta_std"], 0.5 * (original["delta_std"][()] - 1) + 1)
        assert file["samples/losses"].shape == (IMAGES, 1)
        assert np.array_equal(file["samples/losses"][:, 0], original["samples/losses"][:, 0])
        means = pixels(scaled["0.5"], HALF).double().mean(dim=(1, 2, 3))
        np.testing.assert_allclose(file["samples/pixel_mean"], means, rtol=1e-6)


def test_a_scaled_data_set_is_one_like_others(scaled: dict[str, Path], tmp_path: Path) -> None:
    folder = scaled["0.5"]
    assert advbn_gen("verify", folder).code == 0
    assert advbn_gen("info", folder, "--json").result["top1"].keys() == {"clean", "reconstructed"}
    about = advbn_gen("info", folder / LEDGER, "--json").result
    assert (about["scale"], about["losses_per_sample"]) == (0.5, 1)
    assert about["top1"].keys() == {"clean", "reconstructed"}
    assert advbn_gen("export", folder, tmp_path / "images").code == 0
    assert len(list((tmp_path / "images").rglob("*.png"))) == IMAGES


@pytest.mark.parametrize("scale", ["1", "0.5"])
def test_a_damaged_shard_is_mended_by_verify_and_by_the_command(
    scale: str, finished: Path, scaled: dict[str, Path], world: World, tmp_path: Path
) -> None:
    name = NAME if scale == "1" else HALF
    out = tmp_path / "out"
    assert render(finished / LEDGER, world, out, "--scale", scale).code == 0
    whole = folder_bytes(out)
    tar_of(out, 3, name).write_bytes(b"no tar")
    assert advbn_gen("verify", out).code == 1
    assert advbn_gen("verify", out, "--repair").code == 0
    assert folder_bytes(out) == whole
    tar_of(out, 4, name).unlink()
    assert render(finished / LEDGER, world, out, "--scale", scale, "--json").result["made"] == 1
    assert folder_bytes(out) == whole
    if scale != "1":
        assert {k: v for k, v in whole.items() if k != "manifest.json"} == {
            k: v for k, v in folder_bytes(scaled[scale]).items() if k != "manifest.json"
        }


def test_a_changed_image_is_refused_by_name_and_the_mended_run_completes(
    ledger: Path, finished: Path, world: World, tmp_path: Path
) -> None:
    source = Path(shutil.copytree(world.source, tmp_path / "source"))
    names = [sample["source"] for sample in sample_metadata(finished)]
    other, gone, cut = names[9], names[22], names[33]
    kept = {name: (source / name).read_bytes() for name in (other, gone, cut)}
    shutil.copy(source / names[0], source / other)
    (source / gone).unlink()
    broken_image(source / cut)
    failed = render(ledger, world, tmp_path / "out", source=source)
    assert failed.code == 1
    assert "3 of 12 shards could not be made" in failed.err
    assert f"shard 2: the image {other} is not the one in the ledger" in failed.err
    assert f"shard 5: the image {gone} is in the ledger but not in the source" in failed.err
    assert f"shard 8: the image {cut} is not the one in the ledger" in failed.err
    for name, content in kept.items():
        (source / name).write_bytes(content)
    mended = render(ledger, world, tmp_path / "out", "--manifest", finished / "manifest.json", "--json", source=source)
    assert mended.code == 0, mended.err
    assert (mended.result["made"], mended.result["bytes_equal"]) == (3, True)
    made, original = (without_addresses(folder_bytes(folder)) for folder in (tmp_path / "out", finished))
    assert {name for name in original if made[name] != original[name]} == {"manifest.json"}


def test_an_interrupted_rendering_goes_on(
    ledger: Path, finished: Path, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 0

    def stopping(image: NDArray[np.uint8]) -> bytes:
        nonlocal count
        count += 1
        if count > 5 * BATCH:
            raise KeyboardInterrupt
        return encode_png(image)

    with monkeypatch.context() as patch:
        patch.setattr("pipeline.shard.encode_png", stopping)
        assert render(ledger, world, tmp_path / "out").code == 130
    there = len(list((tmp_path / "out/stats").glob("*.json")))
    assert 0 < there < SHARDS
    done = render(ledger, world, tmp_path / "out", "--json")
    assert done.result["made"] == SHARDS - there
    made, original = folder_bytes(tmp_path / "out"), folder_bytes(finished)
    assert {name for name in original if made[name] != original[name]} == {"manifest.json"}


def test_the_original_run_and_its_rendering_complete_each_other(copied: Path, world: World, tmp_path: Path) -> None:
    whole = folder_bytes(copied)
    ledger = Path(shutil.copy(copied / LEDGER, tmp_path / "ledger.h5"))
    tar_of(copied, 7).unlink()
    assert render(ledger, world, copied, "--json").result["made"] == 1
    tar_of(copied, 2).unlink()
    assert world.make(copied, "--json").result["made"] == 1
    assert folder_bytes(copied) == whole


def changed_identity(ledger: Path, **changed: Any) -> None:
    """Forge a ledger whose run was another one."""
    old = read_ledger(ledger)
    identity = old.attributes["identity"] | changed
    write_ledger(ledger, old.columns, old.attributes | {"identity": identity, "fingerprint": digest_json(identity)})


def test_other_software_promises_no_bytes_but_pixel_means(ledger: Path, world: World, tmp_path: Path) -> None:
    changed_identity(ledger, software={"torch": "1.0"})
    done = render(ledger, world, tmp_path / "out", "--json")
    assert done.code == 0
    assert (done.result["bytes_promised"], done.result["ok"]) == (False, True)
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert manifest["identity"]["software"]["torch"] != "1.0"


@pytest.mark.parametrize(("grey_levels", "code"), [(0.4, 0), (0.6, 1)])
def test_images_beyond_the_tolerance_fail(
    grey_levels: float, code: int, ledger: Path, world: World, tmp_path: Path
) -> None:
    changed_identity(ledger, software={"torch": "1.0"})
    old = read_ledger(ledger)
    old.columns["samples/pixel_mean"][17] += np.float32(grey_levels)
    write_ledger(ledger, old.columns, old.attributes)
    done = render(ledger, world, tmp_path / "out", "--json")
    assert done.code == code
    assert done.result["ok"] is (code == 0)
    assert done.result["pixel_mean_difference"] == pytest.approx(grey_levels, abs=1e-4)
    assert ("more than the tolerance" in done.err) == bool(code)


def forged(finished: Path, tmp_path: Path, shard: int) -> Path:
    """The manifest with another checksum for one shard."""
    from tests.pipeline.world import forge_json

    path = Path(shutil.copy(finished / "manifest.json", tmp_path / "forged.json"))
    shards = json.loads(path.read_text())["shards"]
    shards[shard]["sha256"] = "0" * 64
    forge_json(path, shards=shards)
    return path


def test_other_bytes_where_they_are_promised_fail(ledger: Path, finished: Path, world: World, tmp_path: Path) -> None:
    done = render(ledger, world, tmp_path / "out", "--manifest", forged(finished, tmp_path, 4), "--json")
    assert done.code == 1
    assert (done.result["bytes_equal"], done.result["ok"]) == (False, False)
    assert done.result["differing"] == [tar_of(finished, 4).name]
    assert tar_of(finished, 4).name in done.err


def refusal(ledger: Path, world: World, out: Path, *more: object, **changed: object) -> str:
    """Refused with exit code 2 and one sentence, before anything was written."""
    said = refused(*words(ledger, world, out, *more, **changed))
    assert not out.exists()
    return said


def test_what_does_not_belong_to_the_ledger_is_refused(ledger: Path, world: World, tmp_path: Path) -> None:
    out = tmp_path / "out"
    said = refusal(ledger, world, out, autoencoder=tiny_autoencoder(tmp_path / "other.safetensors", seed=9))
    assert "not the one of the ledger" in said
    assert "autoencoder.sha256: " in said
    said = refusal(ledger, world, out, autoencoder=tiny_autoencoder(tmp_path / "r.safetensors", "resnet"))
    assert "autoencoder.encoder: vgg -> resnet" in said
    names = sorted(str(path.relative_to(world.source)) for path in world.source.rglob("*.JPEG"))
    (tmp_path / "order.txt").write_text("\n".join(reversed(names)) + "\n")
    assert "another order" in refusal(ledger, world, out, order=tmp_path / "order.txt")


def test_another_source_is_refused(ledger: Path, world: World, tmp_path: Path) -> None:
    out, source = tmp_path / "out", Path(shutil.copytree(world.source, tmp_path / "source"))
    for path in list(source.rglob("*.JPEG")):
        path.rename(path.with_name(f"x{path.name}"))
    assert "none of the ledger's images" in refusal(ledger, world, out, source=source)
    source = Path(shutil.copytree(world.source, tmp_path / "cats"))
    for folder in list(source.iterdir()):
        folder.rename(folder.with_name(f"cat{folder.name}"))
    assert "classes" in refusal(ledger, world, out, source=source)


def test_ledgers_that_cannot_be_rendered_are_refused(
    ledger: Path, finished: Path, scaled: dict[str, Path], world: World, tmp_path: Path
) -> None:
    out, whole = tmp_path / "out", ledger.read_bytes()
    with h5py.File(ledger, "a") as file:
        file.attrs["version"] = 3
    assert "newer advbn-gen" in refusal(ledger, world, out)
    with h5py.File(ledger, "a") as file:
        file.attrs["version"] = 1
        del file["samples/losses"], file["samples/pixel_mean"]
    assert "version 1, which cannot be rendered" in refusal(ledger, world, out)
    assert advbn_gen("info", ledger, "--json").result["format_version"] == 1
    for length in (0, 100, len(whole) // 2, len(whole) - 1):
        ledger.write_bytes(whole[:length])
        assert "is damaged" in refusal(ledger, world, out)
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["x"] = np.zeros(3)
    assert "not a perturbation ledger" in refusal(tmp_path / "foreign.h5", world, out)
    assert "missing" in refusal(tmp_path / "none.h5", world, out)
    assert "one shard only" in refusal(finished / "stats/000003.h5", world, out)
    assert "was itself rendered at the scale 0.5" in refusal(scaled["0.5"] / LEDGER, world, out)


def other(attributes: dict[str, Any], group: str, **changed: object) -> dict[str, Any]:
    """Attributes of a ledger with something else in its identity, and the fingerprint of that."""
    identity = attributes["identity"] | {group: attributes["identity"][group] | changed}
    return attributes | {"identity": identity, "fingerprint": digest_json(identity)}


CONTRADICTIONS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "its fingerprint is not that": lambda attributes: attributes | {"fingerprint": "0" * 64},
    "the name '../../x' is not a plain one": lambda attributes: attributes | {"name": "../../x"},
    "the name 7 is not a plain one": lambda attributes: attributes | {"name": 7},
    "it lacks 'names'": lambda attributes: attributes | {"classes": {"imagenet": False}},
    "its classes are more or fewer": lambda attributes: other(attributes, "images", classes=7),
    "The batch size is 0": lambda attributes: other(attributes, "batches", batch_size=0),
    "samples/label has the shape": lambda attributes: other(attributes, "images", count=39),
    "delta_mean has the shape": lambda attributes: other(attributes, "autoencoder", width=1.0),
    "loss has the shape": lambda attributes: other(attributes, "attack", steps=9),
    "There is no encoder": lambda attributes: other(attributes, "autoencoder", encoder="mine"),
    "unexpected keyword argument 'seed'": lambda attributes: other(attributes, "attack", seed=1),
    "not supported between": lambda attributes: other(attributes, "arithmetic", threads="many"),
}


@pytest.mark.parametrize("fault", CONTRADICTIONS)
def test_a_ledger_that_contradicts_itself_is_refused(fault: str, ledger: Path, world: World, tmp_path: Path) -> None:
    old = read_ledger(ledger)
    write_ledger(ledger, old.columns, CONTRADICTIONS[fault](old.attributes))
    said = refusal(ledger, world, tmp_path / "out")
    assert "is damaged (" in said
    assert fault in said


def test_a_ledger_whose_rows_cannot_be_shards_is_refused(ledger: Path, world: World, tmp_path: Path) -> None:
    old = read_ledger(ledger)
    keys, sizes = old.columns["samples/key"], old.columns["batch_size"]
    for name, column, fault in (
        ("samples/key", np.array([b"../up", *keys[1:]]), "the name '../up' is not a plain one"),
        ("samples/key", np.array([keys[1], *keys[1:]]), "two of its samples have the same key"),
        ("batch_size", np.array([sizes[0] + 1, sizes[1] - 1, *sizes[2:]]), "batch_size is not how the identity cuts"),
    ):
        write_ledger(ledger, old.columns | {name: column}, old.attributes)
        assert fault in refusal(ledger, world, tmp_path / "out")


@pytest.mark.parametrize("scale", ["-1", "nan", "inf"])
def test_scales_that_are_none_are_refused(scale: str, ledger: Path, world: World, tmp_path: Path) -> None:
    assert "The scale is" in refusal(ledger, world, tmp_path / "out", scale=scale)


def test_manifests_that_do_not_belong_are_refused(
    ledger: Path, finished: Path, scaled: dict[str, Path], world: World, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    own = finished / "manifest.json"
    assert "another run" in refusal(ledger, world, out, manifest=scaled["0.5"] / "manifest.json")
    assert "There is no manifest" in refusal(ledger, world, out, manifest=tmp_path / "none.json")
    assert "leave out --manifest" in refusal(ledger, world, out, "--scale", 0.5, manifest=own)
    (tmp_path / "text.json").write_text("{")
    assert "is damaged" in refusal(ledger, world, out, manifest=tmp_path / "text.json")
    old = read_ledger(ledger)
    old.columns["delta_std"][3, 2] += 0.2
    write_ledger(ledger, old.columns, old.attributes)
    assert "not the one of its manifest" in refusal(ledger, world, out, manifest=own)


def test_another_run_s_manifest_beside_the_ledger_is_ignored(
    ledger: Path, scaled: dict[str, Path], world: World, tmp_path: Path
) -> None:
    shutil.copy(scaled["0.5"] / "manifest.json", ledger.with_name("manifest.json"))
    done = render(ledger, world, tmp_path / "out", "--json")
    assert done.result["bytes_equal"] is None
    assert "is ignored" in done.err


def test_another_rendering_in_the_folder_is_refused(ledger: Path, world: World, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert render(ledger, world, out).code == 0
    said = refused(*words(ledger, world, out, "--scale", 0.5))
    assert "scale: (absent) -> 0.5" in said
    assert render(ledger, world, out, "--scale", 0.5, "--overwrite").code == 0
    assert {path.name for path in out.glob("*.tar")} == {f"{HALF}-val-{shard:06d}.tar" for shard in range(SHARDS)}


def test_a_task_carries_its_shards_rows_only(finished: Path, world: World, tmp_path: Path) -> None:
    request = RenderRequest(
        ledger=finished / LEDGER, source=str(world.source), autoencoder=str(world.autoencoder), threads=1
    )
    ledger = read_renderable(request.ledger)
    job = render_job(request, ledger, tmp_path / "out")
    part = job.part(7)
    assert isinstance(part.perturbation, Replay)
    assert {len(column) for column in part.perturbation.columns.values()} == {1, BATCH}
    assert np.array_equal(part.perturbation.columns["delta_mean"][0], ledger.columns["delta_mean"][7])
    assert part.perturbation.columns["samples/key"][0] == ledger.columns["samples/key"][7 * BATCH]
    rows, columns = part.perturbation.columns.values(), ledger.columns.values()
    assert sum(column.nbytes for column in rows) * SHARDS == sum(column.nbytes for column in columns)
    # Names and types of the columns weigh something, too.
    assert len(pickle.dumps(part.perturbation)) < sum(column.nbytes for column in rows) + 2000


def test_parts_make_the_same_shards(finished: Path, world: World, tmp_path: Path) -> None:
    from pipeline.generate import generate_shard

    request = RenderRequest(
        ledger=finished / LEDGER, source=str(world.source), autoencoder=str(world.autoencoder), threads=1
    )
    out = tmp_path / "out"
    (out / "stats").mkdir(parents=True)
    job = render_job(request, read_renderable(request.ledger), out)
    for shard in (4, 11):
        sent = pickle.loads(pickle.dumps(job.part(shard)))
        assert generate_shard(sent, shard).done
        assert tar_of(out, shard).read_bytes() == tar_of(finished, shard).read_bytes()
