"""Networks trained on ImageNet as the attacked classifier: the same bytes by every way, and real images with them."""

import json
import signal
from pathlib import Path

import pytest
import timm
from safetensors.torch import save_file

from tests.cluster import cluster
from tests.processes import finish, start, wait_until
from tests.support import Outcome, advbn_gen, folder_bytes, image_folder, tiny_autoencoder

LITE0 = "packaged:efficientnet-lite0"
SHARDS = 4
IMAGES = 16


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return image_folder(tmp_path_factory.mktemp("images") / "source", per_class=6)


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_autoencoder(tmp_path_factory.mktemp("autoencoder") / "autoencoder.safetensors")


@pytest.fixture(scope="module", params=[LITE0, "timm:test_resnet={file}"])
def spec(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("weights") / "weights.safetensors"
    save_file(timm.create_model("test_resnet").state_dict(), file)
    return str(request.param).format(file=file)


def words(spec: str, source: Path, autoencoder: Path, out: Path, *more: object) -> list[object]:
    return [
        "imagenet-advbn", "--encoder", "vgg", "--autoencoder", autoencoder, "--classifier", spec, "--source", source,
        "--image-size", 32, "--batch-size", 4, "--batches-per-shard", 1, "--limit", IMAGES, "--threads", 1,
        "--device", "cpu", "--out", out, *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def made(spec: str, source: Path, autoencoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made") / "out"
    done: Outcome = advbn_gen(*words(spec, source, autoencoder, out))
    assert done.code == 0, done.err
    return out


@pytest.mark.slow
def test_the_manifest_names_network_and_weights(spec: str, made: Path) -> None:
    manifest = json.loads((made / "manifest.json").read_text())
    classifier, config = manifest["identity"]["classifier"], manifest["config"]
    network = {LITE0: "timm:tf_efficientnet_lite0"}.get(spec, "timm:test_resnet")
    assert (classifier["name"], config["classifier"]) == (network, network)
    assert config["classifier_weights"] == (spec if spec == LITE0 else spec.partition("=")[2])
    assert len(classifier["sha256"]) == 64
    assert advbn_gen("verify", made).code == 0


@pytest.mark.slow
def test_a_killed_run_goes_on_with_two_workers_to_the_same_bytes(
    spec: str, source: Path, autoencoder: Path, made: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    process = start(*words(spec, source, autoencoder, out))
    assert wait_until(lambda: any(out.glob("stats/*.json")), process)
    process.kill()
    code, _, stderr = finish(process)
    assert code == -signal.SIGKILL, stderr
    code, stdout, stderr = finish(start(*words(spec, source, autoencoder, out, "--workers", 2, "--json")))
    assert code == 0, stderr
    assert 0 < json.loads(stdout)["made"] < SHARDS
    assert folder_bytes(out) == folder_bytes(made)


@pytest.mark.slow
def test_a_cluster_gives_the_same_bytes(spec: str, source: Path, autoencoder: Path, made: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with cluster(tmp_path, 2) as started:
        code, _, stderr = finish(start(*words(spec, source, autoencoder, out, "--scheduler", started.address)))
    assert code == 0, stderr
    assert folder_bytes(out) == folder_bytes(made)


@pytest.mark.slow
def test_the_ledger_renders_the_same_bytes(source: Path, autoencoder: Path, made: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = advbn_gen(
        "render", made / "perturbations.h5", "--source", source, "--autoencoder", autoencoder, "--out", out,
    )  # fmt: skip
    assert done.code == 0, done.err
    expected = {name: content for name, content in folder_bytes(made).items() if name.endswith(".tar")}
    assert {name: content for name, content in folder_bytes(out).items() if name.endswith(".tar")} == expected
    assert len(expected) == SHARDS
