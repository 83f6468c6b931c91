"""The snippets of docs/shards.md and docs/ledger.md run as they stand and read every sample."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import advbn_gen, image_folder, tiny_autoencoder, tiny_classifier

# Another library reads a data set that is made before the first test.
pytestmark = pytest.mark.slow

PAGES = [Path(__file__).parents[1] / "docs" / name for name in ("shards.md", "ledger.md")]
CLASSES = 12
SAMPLES = 504
LIBRARIES = ("timm", "datasets", "wids")

_SNIPPET = re.compile(r"^<!-- test: (base|readers) -->\n```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


def snippets(kind: str) -> list[object]:
    """The snippets that need only the project's dependencies (`base`) or other libraries (`readers`), by heading."""
    return [
        pytest.param(match[2], id=_HEADING.findall(text, 0, match.start())[-1])
        for text in (page.read_text() for page in PAGES)
        for match in _SNIPPET.finditer(text)
        if match[1] == kind
    ]


@pytest.fixture(scope="session")
def sample_dataset_parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the drawn world's data set in several shards, made by small untrained networks."""
    parent = tmp_path_factory.mktemp("readers")
    cache = parent / "cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("ADVBN_SOURCE", raising=False)
        patch.setenv("ADVBN_CACHE", str(cache))
        made = advbn_gen(
            "imagenet-advbn", "--encoder", "vgg",
            "--out", parent / "sample-advbn-vgg",
            "--autoencoder", tiny_autoencoder(parent / "autoencoder.safetensors"),
            "--classifier-weights", tiny_classifier(parent / "classifier.safetensors", classes=CLASSES),
            "--image-size", 16, "--batches-per-shard", 4, "--threads", 1, "--json",
        )  # fmt: skip
    assert made.code == 0, made.err
    assert made.result["images"] == SAMPLES
    assert not cache.exists(), "both networks were given, so none should have been trained"
    return parent


def run_snippet(code: str, parent: Path, scratch: Path) -> str:
    """Run a snippet as a user would: as a file, from the folder that holds the data set."""
    script = scratch / "snippet.py"
    script.write_text(code)
    caches = {name: str(scratch / name) for name in ("HF_HOME", "WIDS_CACHE")}
    done = subprocess.run(
        [sys.executable, script],
        cwd=parent,
        env={**os.environ, **caches, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("code", snippets("base"))
def test_a_snippet_reads_every_sample(code: str, sample_dataset_parent: Path, tmp_path: Path) -> None:
    assert f"{SAMPLES} samples" in run_snippet(code, sample_dataset_parent, tmp_path)


def test_a_manifest_loses_every_path(sample_dataset_parent: Path, tmp_path: Path) -> None:
    """The drawn world has fewer paths than a run on somebody's images."""
    parent = sample_dataset_parent
    source, order = image_folder(tmp_path / "source"), tmp_path / "order.txt"
    order.write_text("".join(f"{path.relative_to(source)}\n" for path in sorted(source.rglob("*.JPEG"))))
    made = advbn_gen(
        "imagenet-advbn", "--encoder", "vgg", "--out", tmp_path / "made", "--source", source, "--order", order,
        "--autoencoder", parent / "autoencoder.safetensors", "--image-size", 16, "--batch-size", 5, "--threads", 1,
        "--classifier-weights", tiny_classifier(tmp_path / "classifier.safetensors", classes=1000),
    )  # fmt: skip
    assert made.code == 0, made.err
    rendered = advbn_gen(
        "render", tmp_path / "made/perturbations.h5", "--out", tmp_path / "sample-advbn-vgg", "--source", source,
        "--order", order, "--autoencoder", parent / "autoencoder.safetensors", "--scale", 0.5,
    )  # fmt: skip
    assert rendered.code == 0, rendered.err
    manifest = tmp_path / "sample-advbn-vgg/manifest.json"
    assert str(tmp_path) in manifest.read_text()
    code = next(match[2] for match in _SNIPPET.finditer(PAGES[0].read_text()) if "not published" in match[2])
    run_snippet(code, tmp_path, tmp_path)
    assert str(tmp_path) not in manifest.read_text()
    assert str(parent) not in manifest.read_text()
    assert advbn_gen("verify", tmp_path / "sample-advbn-vgg").code == 0


@pytest.mark.readers
@pytest.mark.parametrize("code", snippets("readers"))
def test_another_library_reads_every_sample(code: str, sample_dataset_parent: Path, tmp_path: Path) -> None:
    for library in LIBRARIES:
        if re.search(rf"^(import|from) {library}\b", code, re.MULTILINE):
            pytest.importorskip(library, reason=f"{library} is not installed (extra `readers`)")
    assert f"{SAMPLES} samples" in run_snippet(code, sample_dataset_parent, tmp_path)


def test_reading_does_not_change_the_data_set(sample_dataset_parent: Path) -> None:
    outcome = advbn_gen("verify", sample_dataset_parent / "sample-advbn-vgg", "--json")
    assert outcome.code == 0, outcome.err


def test_every_snippet_is_run() -> None:
    for text in (page.read_text() for page in PAGES):
        assert text.count("```python") == len(_SNIPPET.findall(text)) >= 1
    assert len(snippets("base")) >= 4
    assert len(snippets("readers")) >= len(LIBRARIES)
