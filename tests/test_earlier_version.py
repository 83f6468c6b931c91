"""What version 0.1.0 wrote is read, gone on with and made again by this version.

`fixtures/version_0_1` has a small one of each kind of file; `fixtures/make_version_0_1.py` made them, and says how.
None of these tests may be changed to fit a change of the code: users have such files.
"""

import json
import platform
import shutil
from collections.abc import Mapping
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from tests.pipeline.world import forge_json, members, without_addresses
from tests.support import Outcome, advbn_gen, refused

FIXTURE = Path(__file__).parent / "fixtures/version_0_1"
ADVBN, RECONSTRUCTED, SCALED = "imagenet-advbn-vgg", "imagenet-reconstructed-vgg", "imagenet-advbn-vgg-scale-0.5"
HALF = ("imagenet-advbn-resnet", "imagenet-reconstructed-resnet")
THEN: dict[str, str] = json.loads((FIXTURE / "software.json").read_text())
"""Package -> its version when the files were made."""
IMAGING = ("torch", "torchvision", "pillow", "webdataset")
"""What bytes of shards depend on. Double precision takes care of the processor."""
TRAINED_AGAIN = 1e-4
"""Largest difference of weights that another processor may make, relative to a tensor's largest weight."""


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All files, in another place than where they were made; tests must not change them."""
    return Path(shutil.copytree(FIXTURE, tmp_path_factory.mktemp("earlier") / "version"))


def copied(folder: Path, to: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(folder, to / folder.name))


def done(*words: object) -> Outcome:
    outcome = advbn_gen(*words)
    assert outcome.code == 0, outcome.err
    return outcome


def other_packages(*names: str) -> list[str]:
    """How packages differ from those of then, in the words of a refusal."""
    return [f"software.{name}: {THEN[name]} -> {version(name)}" for name in names if version(name) != THEN[name]]


def need_the_packages_of_then() -> None:
    if other := other_packages(*IMAGING):
        pytest.skip(f"bytes are not promised with other packages: {'; '.join(other)}")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def tars(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.tar"))}


def pixels(tar: Path) -> dict[str, Any]:
    images = {name: value for name, value in members(tar).items() if name.endswith(".png")}
    return {name: np.asarray(Image.open(BytesIO(value)), np.int16) for name, value in images.items()}


def columns(ledger: Path) -> dict[str, Any]:
    """Every column of a ledger, and its attributes but for what depends on the software."""
    with h5py.File(ledger) as file:
        found: dict[str, Any] = {}
        file.visititems(lambda name, item: found.update({name: item[()]}) if hasattr(item, "shape") else None)
        attributes = {name: file.attrs[name] for name in file.attrs if name not in {"identity", "fingerprint"}}
        return found | attributes


def same(found: Any, expected: Any) -> bool:
    """Whether two JSON values are the same, numbers but for rounding."""
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(same(found[name], expected[name]) for name in expected)
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(same, found, expected))
    return bool(found == (pytest.approx(expected, rel=1e-9) if isinstance(expected, float) else expected))


# Data sets


@pytest.mark.parametrize("name", [ADVBN, RECONSTRUCTED, SCALED])
def test_a_finished_data_set_verifies(old: Path, name: str) -> None:
    assert done("verify", old / name, "--json").result["ok"] is True


def test_a_finished_data_set_is_unpacked(old: Path, tmp_path: Path) -> None:
    assert done("export", old / ADVBN, tmp_path / "out", "--json").result["images"] == 5


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (ADVBN, {"name": ADVBN, "samples": 5}),
        (SCALED, {"name": SCALED, "samples": 5}),
        (f"{ADVBN}/perturbations.h5", {"kind": "perturbation ledger", "format_version": 2}),
        ("interrupted/imagenet-advbn-resnet", {"complete": False}),
        ("autoencoder-vgg.safetensors", {"kind": "advbn-gen autoencoder", "encoder": "vgg"}),
        ("runs/autoencoder/autoencoder.safetensors", {"kind": "advbn-gen autoencoder", "encoder": "resnet"}),
        ("runs/classifier/classifier.safetensors", {"kind": "advbn-gen classifier", "name": "resnet18"}),
        ("runs/finetuned/main.safetensors", {"kind": "advbn-gen classifier", "name": "resnet18"}),
        ("runs/none", {"kind": "advbn-gen abnn network", "defence": "none"}),
        ("runs/abnn", {"kind": "advbn-gen abnn network", "defence": "abnn"}),
    ],
)
def test_info_describes_a_file(old: Path, path: str, expected: Mapping[str, Any]) -> None:
    found = done("info", old / path, "--json").result
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize(("name", "scale"), [(ADVBN, 1), (SCALED, 0.5)])
def test_a_ledger_is_rendered(old: Path, tmp_path: Path, name: str, scale: float) -> None:
    """The same bytes with the packages of then, also from another version of this one; else nearly the same pixels."""
    out = tmp_path / name
    found = done(
        "render", old / ADVBN / "perturbations.h5", "--source", old / "world/test", "--autoencoder",
        old / "autoencoder-vgg.safetensors", "--scale", scale, "--out", out, "--json",
    ).result  # fmt: skip
    assert found["ok"] is True
    assert (found["made"], found["shards"]) == (2, 2)
    if scale == 1:
        assert found["pixel_mean_difference"] <= found["tolerance"]
        assert found["bytes_promised"] is not bool(other_packages("advbn-gen", *IMAGING)) or not on_a_machine_of_then()
    for tar in tars(old / name):
        then, now = pixels(old / name / tar), pixels(out / tar)
        assert then.keys() == now.keys()
        assert max(abs(now[each] - then[each]).max() for each in then) <= 1
    if not other_packages(*IMAGING):
        assert tars(out) == tars(old / name)


def making(old: Path, out: Path) -> list[object]:
    """The command that made the finished data set."""
    return [
        "imagenet-advbn", "--encoder", "vgg", "--source", old / "world/test", "--autoencoder",
        old / "autoencoder-vgg.safetensors", "--classifier-weights", old / "runs/classifier/classifier.safetensors",
        "--image-size", 16, "--batch-size", 2, "--batches-per-shard", 2, "--steps", 2, "--threads", 1,
        "--reconstructed", "--device", "cpu", "--precision", "fp64", "--out", out, "--json",
    ]  # fmt: skip


@pytest.mark.slow
def test_a_new_run_writes_the_same(old: Path, tmp_path: Path) -> None:
    need_the_packages_of_then()
    done(*making(old, tmp_path / ADVBN))
    for name in (ADVBN, RECONSTRUCTED):
        assert tars(tmp_path / name) == tars(old / name)
    found, expected = (columns(root / ADVBN / "perturbations.h5") for root in (tmp_path, old))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert np.array_equal(found[name], value), name
    if other_packages("advbn-gen", "h5py") or not on_a_machine_of_then():
        return  # Marks and ledgers tell the fingerprint, and HDF5 says the same in other bytes.
    # A new run has a revision, and with it another fingerprint; begun by the manifest of then it has none.
    begun = tmp_path / "begun"
    for name in (ADVBN, RECONSTRUCTED):
        (begun / name).mkdir(parents=True)
        shutil.copy(old / name / "manifest.json", begun / name)
    done(*making(old, begun / ADVBN))
    for name in (ADVBN, RECONSTRUCTED):
        then, now = (wherever_all(contents(root / name)) for root in (old, begun))
        assert now.keys() == then.keys()
        assert [file for file in then if now[file] != then[file]] == []


def wherever_all(content: Mapping[str, bytes]) -> dict[str, object]:
    """The contents of a data set without where anything lay, and without the log, which keeps times."""
    found = without_addresses({name: value for name, value in content.items() if name != "log.jsonl"})
    config: dict[str, Any] = found["manifest.json"]["config"]  # type: ignore[index]
    config["autoencoder"] = config["classifier_weights"] = ""
    return found


def test_a_finished_data_set_is_left_as_it_is(old: Path, tmp_path: Path) -> None:
    """The command that made it finds nothing to do, or is refused because of other packages."""
    for name in (ADVBN, RECONSTRUCTED):
        copied(old / name, tmp_path)
    before = contents(tmp_path)
    words = making(old, tmp_path / ADVBN)
    if other := other_packages("advbn-gen", *IMAGING):
        said = refused(*words)
        assert [each for each in other if each not in said] == []
    else:
        assert done(*words).result["made"] == 0
    assert contents(tmp_path) == before


def on_a_machine_of_then() -> bool:
    manifest = json.loads((FIXTURE / ADVBN / "manifest.json").read_text())
    return bool(manifest["identity"]["arithmetic"]["machine"] == platform.machine())


def going_on(old: Path, out: Path) -> list[object]:
    """The command of the data set that was killed after its first shard."""
    return [
        "imagenet-advbn", "--encoder", "resnet", "--source", old / "wnids", "--autoencoder",
        old / "runs/autoencoder/autoencoder.safetensors", "--classifier", "resnet18", "--classifier-weights", "seed:0",
        "--image-size", 16, "--batch-size", 1, "--batches-per-shard", 2, "--steps", 2, "--threads", 1,
        "--reconstructed", "--device", "cpu", "--out", out, "--json",
    ]  # fmt: skip


@pytest.mark.slow
def test_a_half_finished_data_set_is_gone_on_with(old: Path, tmp_path: Path) -> None:
    for name in HALF:
        copied(old / "interrupted" / name, tmp_path)
    before = contents(tmp_path)
    words = going_on(old, tmp_path / HALF[0])
    other = other_packages("advbn-gen", *IMAGING)
    if other or not on_a_machine_of_then():
        said = refused(*words)
        assert [each for each in other if each not in said] == []
        assert on_a_machine_of_then() or "arithmetic.machine: " in said
        assert contents(tmp_path) == before
        pytest.skip(f"a run does not go on with other packages, which was refused as it should: {said}")
    assert done(*words).result["made"] == 2
    done(*going_on(old, tmp_path / "anew" / HALF[0]))
    for name in HALF:
        done("verify", tmp_path / name)
        after = contents(tmp_path / name)
        kept = [file for file in contents(old / "interrupted" / name) if file not in {"manifest.json", "log.jsonl"}]
        assert [file for file in kept if after[file] != before[f"{name}/{file}"]] == []
        # The first shard may be another processor's.
        anew = tars(tmp_path / "anew" / name)
        assert len(anew) == 3
        assert {tar: after[tar] for tar in list(anew)[1:]} == dict(list(anew.items())[1:])


@pytest.mark.slow
def test_a_run_with_other_packages_is_refused_by_their_names(old: Path, tmp_path: Path) -> None:
    folder = copied(old / "interrupted" / HALF[0], tmp_path)
    identity = json.loads((folder / "manifest.json").read_text())["identity"]
    software = {**identity["software"], "torch": "1.0.0"}
    forge_json(folder / "manifest.json", identity={**identity, "software": software})
    before = contents(folder)
    assert f"software.torch: 1.0.0 -> {version('torch')}" in refused(*going_on(old, folder))
    assert contents(folder) == before


# Trainings


def training(old: Path, name: str, out: Path) -> list[object]:
    """The command of a training."""
    world, encoder = old / "world", encoder_in(old, out.with_suffix(".encoder"))
    words: dict[str, list[object]] = {
        "autoencoder": [
            "train-autoencoder", "--encoder", "resnet", "--encoder-weights", encoder, "--width", 1 / 64, "--source",
            world / "train", "--val", world / "test", "--image-size", 16, "--batch-size", 4, "--epochs", 3, "--lr",
            0.001, "--checkpoint-every", 2,
        ],
        "finetuned": [
            "finetune", "--arch", "resnet18", "--init", old / "runs/classifier", "--source", world / "train", "--val",
            world / "test", "--image-size", 16, "--batch-size", 4, "--epochs", 3, "--steps", 2, "--lr", 0.01,
        ],
        "abnn": [
            "abnn", "train", "--task", "cifar10", "--data", world, "--width", 1 / 64, "--epochs", 3, "--batch-size", 4,
            "--lr", 0.01, "--defence", "abnn", "--substitute", old / "runs/classifier",
        ],
    }  # fmt: skip
    return [*words[name], "--device", "cpu", "--out", out]


def encoder_in(old: Path, folder: Path) -> Path:
    """The frozen encoder of the autoencoder's training as a file of its own.

    It was made from a seed (`seed:1`), which gives other weights in other versions of torch.
    """
    folder.mkdir()
    whole = load_file(old / "runs/autoencoder/autoencoder.safetensors")
    encoder = {name.removeprefix("encoder."): value for name, value in whole.items() if name.startswith("encoder.")}
    save_file(encoder, folder / "encoder.safetensors")
    return folder / "encoder.safetensors"


LEFT = {
    "autoencoder": ("autoencoder.safetensors",),
    "finetuned": ("main.safetensors", "auxiliary.safetensors"),
    "abnn": ("model.safetensors",),
}
"""What each training leaves."""


@pytest.mark.slow
@pytest.mark.parametrize("name", LEFT)
def test_a_half_finished_training_is_gone_on_with(old: Path, tmp_path: Path, name: str) -> None:
    out = copied(old / "interrupted" / name, tmp_path)
    before = (out / "metrics.jsonl").read_text()
    done(*training(old, name, out))
    # A run that began anew would have written other speeds.
    assert (out / "metrics.jsonl").read_text().startswith(before)
    expected = lines(old / "runs" / name / "metrics.jsonl")
    found = lines(out / "metrics.jsonl")
    assert [(line["epoch"], line["step"]) for line in found] == [(line["epoch"], line["step"]) for line in expected]
    for file in LEFT[name]:
        require_close(load_file(out / file), load_file(old / "runs" / name / file))


def require_close(found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].shape == value.shape, name
        assert abs(found[name] - value).max() <= TRAINED_AGAIN * abs(value).max(), name


@pytest.mark.slow
def test_a_training_with_other_settings_is_refused(old: Path, tmp_path: Path) -> None:
    out = copied(old / "interrupted/autoencoder", tmp_path)
    assert "training.seed: 0 -> 1" in refused(*training(old, "autoencoder", out), "--seed", 1)


# Results


def scoring(old: Path, out: Path, *more: object) -> list[object]:
    return ["score", "--model", old / "runs/classifier", *more, "--device", "cpu", "--out", out, "--data"]


@pytest.mark.slow
def test_scores_are_gone_on_with(old: Path, tmp_path: Path) -> None:
    out = copied(old / "results/scores", tmp_path)
    before = contents(out)
    again = done(*scoring(old, out), f"advbn={old / ADVBN}")
    assert "1 of 1 pairs were scored before" in again.err
    assert contents(out) == before
    more = done(*scoring(old, out, old / "runs/finetuned"), f"advbn={old / ADVBN}", f"original={old / 'world/test'}")
    assert "1 of 4 pairs were scored before" in more.err
    assert len(lines(out / "results.jsonl")) == 4
    assert lines(old / "results/scores/results.jsonl")[0] in lines(out / "results.jsonl")


def test_scores_are_found_again(old: Path, tmp_path: Path) -> None:
    done(*scoring(old, tmp_path), f"advbn={old / ADVBN}")
    found, expected = (answers(root / "predictions.h5") for root in (tmp_path, old / "results/scores"))
    assert np.array_equal(found["classes"], expected["classes"])
    assert np.allclose(found["probabilities"], expected["probabilities"], atol=1e-5)
    for now, then in zip(lines(tmp_path / "results.jsonl"), lines(old / "results/scores/results.jsonl"), strict=True):
        unlike = {"data_address", "software"}
        assert {key: value for key, value in now.items() if key not in unlike} == {
            key: value for key, value in then.items() if key not in unlike
        }


def answers(path: Path) -> dict[str, Any]:
    with h5py.File(path) as file:
        return {name: column[()] for name, column in file["scores/advbn/classifier/all"].items()}


@pytest.mark.slow
def test_an_evaluation_is_gone_on_with(old: Path, tmp_path: Path) -> None:
    out = copied(old / "results/evaluation", tmp_path)
    before = contents(out)
    words: list[object] = ["--imagenet", old / "world/test", "--imagenet-c", old / "c", "--device", "cpu", "--out", out]
    again = done("evaluate", "--model", old / "runs/finetuned", *words)
    assert "4 of 4 pairs were scored before" in again.err
    assert contents(out) == before
    more = done("evaluate", "--model", old / "runs/finetuned", old / "runs/classifier", *words)
    assert "4 of 6 pairs were scored before" in more.err
    found = {(line["model"], line["batch_norm"]) for line in lines(out / "results.jsonl")}
    assert found == {("finetuned", "main"), ("finetuned", "auxiliary"), ("classifier", None)}


def require_same_report(found: Path, expected: Path) -> None:
    """The same values and the same tables; the sentences around them are no format, and may be worded better."""
    assert same(*(json.loads((folder / "report.json").read_text()) for folder in (found, expected)))
    assert tables(found / "report.md") == tables(expected / "report.md")


def tables(path: Path) -> list[str]:
    found = [line for line in path.read_text().splitlines() if line.startswith("|")]
    assert found
    return found


def test_results_of_an_evaluation_are_reported(old: Path, tmp_path: Path) -> None:
    done("report", "shift", old / "results/evaluation", "--out", tmp_path / "report")
    require_same_report(tmp_path / "report", old / "results/shift")


@pytest.mark.slow
def test_a_gap_report_is_gone_on_with(old: Path, tmp_path: Path) -> None:
    out = copied(old / "results/gap", tmp_path)
    before = contents(out)
    words: list[object] = [
        "report", "gap", "--original", old / "world/test", "--reconstructed", old / RECONSTRUCTED, "--advbn",
        old / ADVBN, "--out", out, "--device", "cpu", "--model", old / "runs/classifier",
    ]  # fmt: skip
    again = done(*words)
    assert "3 of 3 pairs were scored before" in again.err
    require_same_report(out, old / "results/gap")
    after = contents(out)
    assert [name for name in ("predictions.h5", "results.jsonl") if after[name] != before[name]] == []
    more = done(*words, old / "runs/finetuned", "--scaled", old / SCALED)
    assert "3 of 8 pairs were scored before" in more.err


def attacking(old: Path, out: Path, *names: str) -> list[object]:
    folders = [old / "runs" / name for name in names]
    return [
        "abnn", "attack", "--checkpoint", *folders, "--data", old / "world", "--steps", 2, "--batch-size", 2, "--out",
        out, "--device", "cpu", "--json", "--attack",
    ]  # fmt: skip


@pytest.mark.slow
def test_attacks_are_gone_on_with(old: Path, tmp_path: Path) -> None:
    out = copied(old / "results/attacks", tmp_path)
    then = {(line["model"], line["attack"]): line for line in lines(out / "results.jsonl")}
    again = done(*attacking(old, out, "none", "abnn"), "clean", "pgd").result["rows"]
    # A line that was made anew would tell other seconds.
    assert {(row["model"], row["attack"]): row for row in again} == then
    more = done(*attacking(old, out, "abnn"), "clean", "pgd", "adaptive").result["rows"]
    found = {row["attack"]: row for row in more}
    assert [found[name] for name in ("clean", "pgd-2")] == [then["abnn", name] for name in ("clean", "pgd-2")]
    assert found["worst"]["settings"]["over"] == ["adaptive", "clean", "pgd-2"]


@pytest.mark.slow
def test_a_half_finished_attack_is_gone_on_with(old: Path, tmp_path: Path) -> None:
    out = copied(old / "interrupted/attacks", tmp_path)
    with h5py.File(out / "samples.h5", "r+") as file:
        (known,) = file.values()
        assert (known[:2] != -1).all()
        assert (known[2:] == -1).all()
        # Answers that no attack would give: whoever attacked these images again would mend them.
        known[:2] = wrong = 1 - known[:2]
    done(*attacking(old, out, "abnn"), "pgd")
    with h5py.File(out / "samples.h5") as file:
        (known,) = file.values()
        assert known[:2].tolist() == wrong.tolist()
        assert (known[2:] != -1).all()


def test_results_of_attacks_are_tabulated(old: Path, tmp_path: Path) -> None:
    done("abnn", "table", old / "results/attacks", "--out", tmp_path / "table")
    require_same_report(tmp_path / "table", old / "results/abnn-table")
