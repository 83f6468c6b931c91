"""The Python API: its names are pinned, typed and described, and its examples run."""

import doctest
import inspect
import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from PIL import Image
from torch import nn
from upath import UPath

import advbn_gen
import experiments
from encoders.registry import ENCODERS
from pipeline.drawn_networks import DrawnNetworks
from sources.drawn.source import SHAPES
from sources.drawn.world import write_world
from tests.support import image_folder, tiny_autoencoder, tiny_classifier

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/api.md"
NAMES = {
    "ABNN", "AdaptiveBatchNorm", "AdvBNConfig", "AscentResult", "Classifier", "EncoderKind", "GapReport",
    "GenerationConfig", "LabelledImages", "LayerConfig", "ObjectiveValue", "OwnModel", "PerturbedFeatures",
    "PerturbedImages", "RunResult", "ThreatModel", "UserError", "WorkError", "ascend", "generate", "imagenet_advbn",
    "load_model", "perturb_features", "perturb_images", "put_beside", "register_encoder", "sample_advbn",
    "score_models",
}  # fmt: skip
LONG_EXAMPLES = {"ABNN", "GapReport", "RunResult", "generate", "put_beside", "score_models"}
NOT_OF_A_PAPER = {
    "AscentResult", "Classifier", "LabelledImages", "ObjectiveValue", "RunResult", "ThreatModel", "UserError",
    "WorkError", "load_model",
}  # fmt: skip


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> DrawnNetworks:
    """Untrained networks of the drawn world's classes."""
    folder = tmp_path_factory.mktemp("networks")
    return DrawnNetworks(
        autoencoder=tiny_autoencoder(folder / "autoencoder.safetensors"),
        classifier=tiny_classifier(folder / "classifier.safetensors", len(SHAPES), image_size=48),
    )


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Those of the drawn world's pictures that examples read, of all that `advbn-gen sample-data` draws."""
    folder = tmp_path_factory.mktemp("drawn") / "drawn"
    write_world(folder, size=48, sets=["val"])
    return folder


@pytest.fixture
def here(tmp_path: Path, networks: DrawnNetworks, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder of an example; the drawn world's networks need not be trained for it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(experiments, "drawn_networks", lambda _encoder: networks)
    return tmp_path


def blocks() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def described(name: str) -> str:
    return inspect.getdoc(getattr(advbn_gen, name)) or ""


def functions_of(found: Any) -> Iterator[tuple[str, Callable[..., Any]]]:
    """A function, or what a class has of public ones, by name."""
    if inspect.isfunction(found):
        yield found.__name__, found
        return
    for name, value in vars(found).items():
        function: Any
        if isinstance(value, property):
            function = value.fget
        elif isinstance(value, cached_property):
            function = value.func
        else:
            function = getattr(value, "__func__", value)
        ours = inspect.isfunction(function) and function.__module__ != "typing"  # which gives protocols an `__init__`
        if ours and (name == "__init__" or not name.startswith("_")):
            yield name, function


def test_the_public_names_are_these_and_each_is_on_the_page() -> None:
    """A name that is taken away breaks programs of others: only with a new main version."""
    assert set(advbn_gen.__all__) == NAMES
    page = PAGE.read_text(encoding="utf-8")
    assert [name for name in NAMES if f"`{name}`" not in page] == []


@pytest.mark.parametrize("name", sorted(NAMES))
def test_a_public_name_is_typed(name: str) -> None:
    for function_name, function in functions_of(getattr(advbn_gen, name)):
        signature = inspect.signature(function)
        assert signature.return_annotation is not inspect.Signature.empty, function_name
        for parameter in signature.parameters.values():
            if parameter.name not in {"self", "cls"}:
                assert parameter.annotation not in {inspect.Parameter.empty, Any}, f"{function_name}: {parameter}"


@pytest.mark.parametrize("name", sorted(NAMES))
def test_help_says_what_a_public_name_has_raises_and_comes_from(name: str) -> None:
    found, text = getattr(advbn_gen, name), described(name)
    assert text
    if is_dataclass(found):
        assert [field.name for field in fields(found) if f"    {field.name}: " not in text] == []
    if inspect.isfunction(found):
        parameters = inspect.signature(found).parameters
        assert [parameter for parameter in parameters if f"    {parameter}: " not in text] == []
    if inspect.isfunction(found) or name.endswith("Config"):
        assert "Raises:\n    UserError: " in text
    if name not in NOT_OF_A_PAPER:
        assert re.search(r"section \d|appendix [A-Z]|equation \d|Table \d", text)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in LONG_EXAMPLES)) for name in sorted(NAMES)]
)
def test_the_example_of_a_public_name_runs_as_it_is_written(
    name: str, here: Path, request: pytest.FixtureRequest
) -> None:
    if "`advbn-gen sample-data drawn --size 48`" in described(name):
        (here / "drawn").symlink_to(request.getfixturevalue("drawn"))
    finder, messages = doctest.DocTestFinder(recurse=False), list[str]()
    (example,) = finder.find(getattr(advbn_gen, name), name, globs={})
    assert any(name in line.source for line in example.examples), "there is no example of it"
    with mock.patch.dict(ENCODERS):  # an example adds one
        outcome = doctest.DocTestRunner().run(example, out=messages.append)
    assert outcome.failed == 0, "".join(messages)


@pytest.mark.slow
def test_the_page_runs_as_it_is_written(here: Path, drawn: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "drawn").symlink_to(drawn)
    names: dict[str, Any] = {}
    for block in blocks():
        exec(compile(block, str(PAGE), "exec"), names)
    printed = capsys.readouterr().out
    assert "96 {'clean':" in printed
    assert "attacked original 96" in printed
    assert "mine advbn 0." in printed
    assert (here / "accuracy.png").stat().st_size > 1000
    assert (here / "gap/report.html").is_file()
    assert (here / "reconstructed/manifest.json").is_file()


@dataclass(frozen=True)
class Entry:
    """A path as `os.DirEntry` is one: neither text nor a `Path`, and its text is another."""

    path: Path

    def __fspath__(self) -> str:
        return str(self.path)


@pytest.mark.slow
def test_paths_are_taken_as_users_have_them(tmp_path: Path) -> None:
    source = Entry(image_folder(tmp_path / "source", per_class=2))
    autoencoder = Entry(tiny_autoencoder(tmp_path / "autoencoder.safetensors"))
    classifier = Entry(tiny_classifier(tmp_path / "classifier.safetensors", 1000, image_size=16))
    config = replace(
        advbn_gen.imagenet_advbn("vgg", source, autoencoder), classifier_weights=classifier, image_size=16,
        attack=advbn_gen.AdvBNConfig(steps=1), reconstructed=True,
    )  # fmt: skip
    assert (config.source, config.autoencoder) == (str(source.path), str(autoencoder.path))
    folders = advbn_gen.generate(config, Entry(tmp_path / "advbn")).folders.values()
    advbn, reconstructed = (Entry(Path(str(folder))) for folder in folders)
    assert [len(advbn_gen.LabelledImages(folder)) for folder in (source, advbn, reconstructed)] == [6, 6, 6]
    models = {"attacked": classifier}
    (row,) = advbn_gen.score_models(models, {"advbn": advbn}, Entry(tmp_path / "scores"))
    assert (row["n"], (tmp_path / "scores/results.jsonl").is_file()) == (6, True)
    report = advbn_gen.GapReport.of(source, reconstructed, advbn, classifier, Entry(tmp_path / "gap"), batch_size=4)
    assert [row["n"] for row in report.rows] == [6, 6, 6]


def test_addresses_are_taken_as_results_have_them(tmp_path: Path) -> None:
    """The folder of a result in an object store is a UPath, which is no `os.PathLike`."""
    Image.new("RGB", (8, 8)).save(tmp_path / "1.png")
    folder = UPath("memory://api/images")
    (folder / "cat").mkdir(parents=True)
    (folder / "cat/1.png").write_bytes((tmp_path / "1.png").read_bytes())
    assert len(advbn_gen.LabelledImages(folder)) == 1
    assert advbn_gen.imagenet_advbn("vgg", folder).source == "memory://api/images"


def test_results_are_kept_on_this_machine(tmp_path: Path) -> None:
    source = image_folder(tmp_path / "source", per_class=1)
    with pytest.raises(advbn_gen.UserError, match="on another file system; give a path on this machine"):
        advbn_gen.score_models("resnet18=seed:0", {"mine": source}, "memory://api/scores")
    with pytest.raises(advbn_gen.UserError, match="on another file system; give a path on this machine"):
        advbn_gen.GapReport.of(source, source, source, "resnet18=seed:0", "memory://api/gap")


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ({"mine": nn.Flatten()}, r"The model mine is a module \(Flatten\) .* give OwnModel\(module, classes="),
        (nn.Sequential(nn.Flatten()), r"A model of your own \(Sequential\) was given without a name"),
        (advbn_gen.OwnModel(nn.Flatten(), classes=["a"], image_size=1), r"\(Flatten\) was given without a name"),
        (["resnet18", nn.Flatten()], r"\(Flatten\) was given without a name"),
    ],
)
def test_a_module_alone_is_refused_with_the_way_out(models: Any, message: str, tmp_path: Path) -> None:
    data = {"images": image_folder(tmp_path / "images", per_class=1)}
    with pytest.raises(advbn_gen.UserError, match=message):
        advbn_gen.score_models(models, data, tmp_path / "scores")
    assert not (tmp_path / "scores").exists()


@pytest.mark.parametrize(
    ("models", "data", "message"),
    [({}, {"a": "b"}, "No model was given"), ([], {"a": "b"}, "No model was given"), ("resnet18", {}, "No data set")],
)
def test_nothing_to_score_is_refused(models: Any, data: dict[str, str], message: str, tmp_path: Path) -> None:
    with pytest.raises(advbn_gen.UserError, match=message):
        advbn_gen.score_models(models, data, tmp_path / "scores")
    assert not (tmp_path / "scores").exists()
