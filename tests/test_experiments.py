"""Named experiments: every docstring says what to run and what to expect, and the command runs just that experiment."""

import inspect
import re
import shlex
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import click
import pytest

import experiments
from attacks.pixels import PixelConfig
from attacks.statistics import AdvBNConfig
from cli import COMMANDS, advbn_gen
from commands.options import absolute, absolute_address
from pipeline.config import GenerationConfig
from reports.published_abnn_tables import published_attack, published_methods
from reports.published_table_8 import STANDARD_TRAINING, table_8_row
from reports.published_tables_4_to_7 import set_scores
from training.request import TrainingRequest

PUBLISHED: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (
        experiments.imagenet_advbn_vgg, experiments.imagenet_advbn_resnet, experiments.autoencoder_vgg,
        experiments.autoencoder_resnet, experiments.finetune_resnet50, experiments.finetune_densenet121,
        experiments.finetune_efficientnet_b0, experiments.abnn_cifar10, experiments.abnn_ucf101,
    )
}  # fmt: skip
OWN: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (experiments.classifier, experiments.abnn_substitute, experiments.abnn_clip_substitute)
}
ENTRY_POINTS = {
    "train-autoencoder": "decoders.request.train_autoencoder",
    "train-classifier": "networks.request.train_classifier",
    "finetune": "downstream.request.train_fine_tuning",
    "abnn train": "abnn.request.train_defence",
    "abnn pretrain": "networks.request.train_classifier",
    "imagenet-advbn": "pipeline.generation.prepare",
}
"""Command -> the function that is handed its config."""


class Handed(Exception):  # noqa: N818 (no error: it brings the config out)
    """A command came to the point where the work would begin."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config


def command_of(function: Callable[..., Any]) -> list[str]:
    """The command of an experiment's docstring, without `advbn-gen`."""
    match = re.search(r"Command:\n(.*?)(\n\n|$)", inspect.getdoc(function) or "", re.DOTALL)
    assert match, f"{function.__name__} has no command"
    words = shlex.split(match[1])
    assert words[0] == "advbn-gen"
    return words[1:]


def option(words: list[str], name: str) -> str:
    return words[words.index(name) + 1]


def config_of(words: list[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """What a command would do: the config that it hands to its package."""

    def hand_out(config: Any, *_: Any, **__: Any) -> None:
        raise Handed(config)

    command = " ".join(words[: 2 if words[0] == "abnn" else 1])
    monkeypatch.setattr(ENTRY_POINTS[command], hand_out)
    with pytest.raises(Handed) as handed:
        advbn_gen.main(words, standalone_mode=False)
    return handed.value.config


def experiment_of(name: str, words: list[str]) -> Any:
    """The experiment's own config, with the paths that its command names."""
    if name.startswith("imagenet_advbn"):
        return PUBLISHED[name](
            absolute_address(option(words, "--source")), absolute(Path(option(words, "--autoencoder")))
        )  # fmt: skip
    source = option(words, "--data" if "--data" in words else "--source")
    arch = (option(words, "--arch"),) if name == "classifier" else ()
    weights = {each: option(words, f"--{each}") for each in ("init", "substitute") if name == "abnn_ucf101"}
    return {**PUBLISHED, **OWN}[name](*arch, source, Path(option(words, "--out")), **weights)


@pytest.mark.parametrize("name", [*PUBLISHED, *OWN])
def test_its_command_runs_just_the_experiment(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words = command_of({**PUBLISHED, **OWN}[name])
    assert config_of(words, monkeypatch) == experiment_of(name, words)


@pytest.mark.parametrize("name", PUBLISHED)
def test_its_docstring_says_where_it_is_published_and_what_to_expect(name: str) -> None:
    text = inspect.getdoc(PUBLISHED[name]) or ""
    assert re.search(r"^Paper: [12], .*(section|appendix)", text, re.MULTILINE)
    assert re.search(r"^Expected: .*\d", text, re.MULTILINE)
    assert re.search(r"^Run time: ", text, re.MULTILINE)


def expected(function: Callable[..., Any]) -> set[float]:
    """The numbers that a docstring expects."""
    text = re.search(r"Expected: (.*?)\n\n", inspect.getdoc(function) or "", re.DOTALL)
    assert text
    return {float(number) for number in re.findall(r"\d+\.\d", text[1])}


@pytest.mark.parametrize("encoder", ["vgg", "resnet"])
def test_expected_numbers_of_the_data_sets_are_those_of_table_8(encoder: str) -> None:
    row = table_8_row(STANDARD_TRAINING, encoder)
    assert row is not None
    assert expected(PUBLISHED[f"imagenet_advbn_{encoder}"]) == {*row.advbn, *row.reconstructed, row.original}
    assert expected(PUBLISHED[f"autoencoder_{encoder}"]) == {row.reconstructed[0]}


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("finetune_resnet50", "AdvBN"),
        ("finetune_densenet121", "DenseNet-121 + AdvBN (w/ AA)"),
        ("finetune_efficientnet_b0", "EfficientNet-B0 + AdvBN (w/ AA)"),
    ],
)
def test_expected_numbers_of_fine_tuning_are_those_of_tables_1_and_6(name: str, row: str) -> None:
    scores = set_scores(row)
    assert scores is not None
    published = {getattr(scores, each.name) for each in fields(scores)} - {None}
    assert expected(PUBLISHED[name]) == published


@pytest.mark.parametrize("task", experiments.BENCHMARKS)
def test_expected_numbers_of_abnn_are_those_of_its_tables(task: str) -> None:
    methods = published_methods(task)
    assert expected(PUBLISHED[f"abnn_{task}"]) == {
        value for each in methods.values() for value in each.accuracy.values()
    }


@pytest.mark.parametrize("task", experiments.BENCHMARKS)
def test_the_benchmark_s_attack_is_the_paper_s_column(task: str) -> None:
    pixels = experiments.BENCHMARKS[task].pixels
    settings = {"eps": pixels.eps, "steps": pixels.steps, "norm": pixels.norm, "restarts": 1}
    assert published_attack(task, "pgd-5", settings) == "pgd"


def test_the_clips_of_ucf101_are_the_published_ones() -> None:
    benchmark = experiments.UCF101
    assert (benchmark.frames, benchmark.training.image_size, benchmark.media) == (40, 112, "clip")
    assert benchmark.pixels.step_size == benchmark.pixels.eps / 4


def test_defaults_of_config_classes_are_the_published_numbers() -> None:
    """Classes have them so that a part of a config can be made in Python; the experiments state them by value."""
    published = experiments.imagenet_advbn_vgg("images", "autoencoder.safetensors")
    assert published == GenerationConfig(encoder="vgg", source="images", autoencoder="autoencoder.safetensors")
    tuning = experiments.finetune_resnet50("images", Path("out")).tuning
    assert (tuning.attack, tuning.pixels) == (AdvBNConfig(), PixelConfig())


@pytest.mark.parametrize("arch", ["resnet50", "densenet121", "efficientnet_b0", "resnet18"])
def test_an_architecture_s_fine_tuning_is_its_experiment_or_resnet50_s(arch: str) -> None:
    request = experiments.finetune(arch, "images", Path("out"))
    if arch == "resnet18":
        assert request == replace(experiments.finetune_resnet50("images", Path("out")), arch="resnet18")
    else:
        assert request == PUBLISHED[f"finetune_{arch}"]("images", Path("out"))


def commands() -> dict[str, click.Command]:
    found: dict[str, click.Command] = {}
    for name in COMMANDS:
        command = advbn_gen.get_command(click.Context(advbn_gen), name)
        assert command is not None
        found |= {f"{name} {inner}": each for inner, each in getattr(command, "commands", {}).items()}
        found[name] = command
    return found


def values_of(config: Any, prefix: str = "") -> dict[str, Any]:
    """The fields of a config and of the configs in it, by the names that options have."""
    found: dict[str, Any] = {}
    for each in fields(config):
        value = getattr(config, each.name)
        if is_dataclass(value):
            found |= values_of(value, "pixel_" if each.name == "pixels" else "")
        else:
            found["smallest_crop" if each.name == "smallest" else prefix + each.name] = value
    return found


ADDRESSES = {"source", "out", "autoencoder", "classifier_weights", "encoder_weights", "held_out"}
"""Options whose help says in words what stands in their place."""


@pytest.mark.parametrize(
    ("command", "config", "count"),
    [
        ("imagenet-advbn", experiments.imagenet_advbn_vgg(), 6),
        ("train-autoencoder", experiments.autoencoder_vgg("images", Path("out")), 3),
        ("train-classifier", experiments.classifier("resnet18", "images", Path("out")), 2),
        ("finetune", experiments.finetune_resnet50("images", Path("out")), 15),
        ("abnn pretrain", experiments.abnn_substitute("images", Path("out")), 3),
    ],
)
def test_help_states_the_experiment_s_values(command: str, config: Any, count: int) -> None:
    """`[default: X]` in a help text is what happens without the option."""
    values, compared = values_of(config), 0
    for param in commands()[command].params:
        assert isinstance(param, click.Option)
        stated = re.search(r"\[default: ([^;\]]+)", param.help or "")
        if not stated or param.name in ADDRESSES or values.get(str(param.name)) is None:
            continue
        value = values[str(param.name)]
        if isinstance(value, float | int):
            above, _, below = stated[1].partition("/")
            assert float(above) / float(below or 1) == value, param.name
        else:
            assert stated[1] == (" ".join(value) or "none" if isinstance(value, tuple) else value), param.name
        compared += 1
    assert compared == count


def test_help_says_in_words_how_many_loaders_the_machine_gets() -> None:
    """As `None` in the experiments' settings does."""
    options = [param for command in commands().values() for param in command.params if param.name == "loaders"]
    assert len(options) >= 7
    for option in options:
        assert isinstance(option, click.Option)
        assert "[default: half the cores on a GPU, else 0" in (option.help or "")
    assert experiments.finetune_resnet50("images", Path("out")).training.loaders is None


def test_help_states_where_efficientnet_differs() -> None:
    values = values_of(experiments.finetune_efficientnet_b0("images", Path("out")))
    stated = {
        str(param.name): match[1]
        for param in commands()["finetune"].params
        if isinstance(param, click.Option) and (match := re.search(r"efficientnet_b0: ([^;\]]+)", param.help or ""))
    }
    assert stated == {"eps": str(values["eps"]), "steps": str(values["steps"]), "augment": " ".join(values["augment"])}


def test_every_trainer_s_request_is_of_one_shape() -> None:
    requests = [PUBLISHED[name]("images", Path("out")) for name in PUBLISHED if not name.startswith("imagenet")]
    assert len(requests) == 7
    assert all(isinstance(request, TrainingRequest) for request in requests)
