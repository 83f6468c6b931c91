"""docs/extending.md: its blocks run as they stand, and what they make is what it should be."""

import contextlib
import csv
import io
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

import advbn_gen
from cli import COMMANDS
from decoders.autoencoder import load_autoencoder
from downstream.suites import OTHERS, TestSetPaths
from encoders import ENCODERS
from reports import shift_tables
from sources.drawn.source import DrawnSource
from tests.packages import install
from tests.support import Outcome, refused, seeded
from tests.support import advbn_gen as command

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/extending.md"
MOST_LINES = 50
EXAMPLES = ("An encoder", "An attack", "A corruption", "A test set")
FEW = {"train": 40, "val": 16}
"""Pictures of each class that are drawn here; the page's command draws several times as many."""
PUBLISHED = "resnet20-12fca82f.th"


class Block(NamedTuple):
    example: str
    language: str
    text: str


def blocks() -> list[Block]:
    _, *examples = re.split(r"^## ", "## Beginning\n" + PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return [
        Block(example.splitlines()[0], *found)
        for example in examples
        for found in re.findall(r"^```(\w*)\n(.*?)^```", example, re.DOTALL | re.MULTILINE)
    ]


@dataclass
class Session:
    """One reader's session with the page."""

    folder: Path
    names: dict[str, Any] = field(default_factory=dict)
    """What the code has defined."""
    printed: dict[str, str] = field(default_factory=dict)
    """What the code of each example has printed."""
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    """What commands did, by command and `--out`."""

    def run(self, block: Block) -> None:
        match block.language:
            case "bash":
                for words in commands_of(block.text):
                    self.command(words)
            case "toml":
                settings = tomllib.loads(block.text)
                modules = {
                    name: (self.folder / f"{name}.py").read_text()
                    for name in settings["tool"]["setuptools"]["py-modules"]
                }
                install(self.folder, settings["project"]["name"], settings["project"]["entry-points"], modules)
            case "python" if found := re.match(r"# (\w+\.py)\n", block.text):
                (self.folder / found[1]).write_text(block.text, encoding="utf-8")
            case "python":
                with contextlib.redirect_stdout(io.StringIO()) as out:
                    exec(compile(block.text, f"{PAGE}, {block.example}", "exec"), self.names)
                self.printed[block.example] = self.printed.get(block.example, "") + out.getvalue()
            case language:
                raise AssertionError(f"a block of {language!r}")

    def command(self, words: Sequence[str]) -> None:
        if words[0] == "sample-data":
            draw_few(self.folder / words[1], int(words[words.index("--size") + 1]))
            return
        outcome = command(*words)
        assert outcome.code == 0, outcome.err
        self.outcomes[f"{words[0]} {words[-1]}"] = outcome


def commands_of(text: str) -> list[list[str]]:
    lines = text.replace("\\\n", " ").splitlines()
    assert all(line.startswith("advbn-gen ") for line in lines)
    return [shlex.split(line)[1:] for line in lines]


def draw_few(out: Path, size: int) -> None:
    for split, count in FEW.items():
        source = DrawnSource(split, size)
        for record in source.records:
            if int(Path(record.name).stem.rpartition("-")[2]) <= count:
                (out / split / record.name).parent.mkdir(parents=True, exist_ok=True)
                (out / split / record.name).write_bytes(source.read(record))


def published_resnet20(stages: int = 3) -> dict[str, Tensor]:
    """A state dict with the names and shapes of the published ResNet-20, random weights."""
    state = {
        "conv1.weight": torch.randn(16, 3, 3, 3) / 5,
        **batch_norm("bn1", 16),
        "linear.weight": torch.randn(10, 64),
    }
    state["linear.bias"] = torch.randn(10)
    for stage, before, channels in ((1, 16, 16), (2, 16, 32), (3, 32, 64)):
        for block in range(stages):
            name, inputs = f"layer{stage}.{block}", before if block == 0 else channels
            for number, fan in ((1, inputs), (2, channels)):
                state[f"{name}.conv{number}.weight"] = torch.randn(channels, fan, 3, 3) / (9 * fan) ** 0.5
                state |= batch_norm(f"{name}.bn{number}", channels)
    return state


def batch_norm(name: str, channels: int) -> dict[str, Tensor]:
    return {
        f"{name}.weight": torch.rand(channels) + 0.5, f"{name}.bias": torch.randn(channels) / 10,
        f"{name}.running_mean": torch.randn(channels) / 10, f"{name}.running_var": torch.rand(channels) + 0.5,
        f"{name}.num_batches_tracked": torch.tensor(7),
    }  # fmt: skip


def save_published(path: Path, state: dict[str, Tensor]) -> None:
    torch.save({"state_dict": {f"module.{name}": value for name, value in state.items()}, "best_prec1": 92.6}, path)


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    with seeded(0):
        return published_resnet20()


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory, weights: dict[str, Tensor]) -> Iterator[Session]:
    folder, encoders = tmp_path_factory.mktemp("extending"), dict(ENCODERS)
    save_published(folder / PUBLISHED, weights)
    with pytest.MonkeyPatch.context() as patch:
        # Other cores are for other tests; and the main job would keep them for the commands after it.
        patch.setattr("pipeline.config.available_cores", lambda: 1)
        patch.chdir(folder)
        patch.syspath_prepend(folder)
        found = Session(folder)
        for block in blocks():
            found.run(block)
        yield found
    ENCODERS.clear()
    ENCODERS.update(encoders)
    sys.modules.pop("cifar_resnet", None)


@pytest.fixture(scope="module")
def network(session: Session) -> torch.nn.Module:
    return advbn_gen.load_model(str(session.folder / "classifier")).module


def pixels(path: Path) -> Tensor:
    return torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1) / 255


def predictions(network: torch.nn.Module, paths: Sequence[Path]) -> Tensor:
    logits: Tensor = network(torch.stack([pixels(path) for path in paths]))
    return logits


def labels_of(folder: Path, paths: Sequence[Path]) -> Tensor:
    classes = sorted(path.name for path in folder.iterdir())
    return torch.tensor([classes.index(path.parent.name) for path in paths])


def row(outcome: Outcome, name: str) -> list[str]:
    (found,) = (line for line in outcome.out.splitlines() if re.match(rf"\| \S+ *\| {name} ", line))
    return [cell.strip() for cell in found.strip("|").split("|")]


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_is_short(example: str) -> None:
    lines = [line for block in blocks() if block[:2] == (example, "python") for line in block.text.splitlines()]
    assert 10 < len(lines) < MOST_LINES


def test_a_networks_front_makes_a_data_set(session: Session) -> None:
    with h5py.File("advbn-lite0/perturbations.h5") as ledger:
        # 64 images are two batches; EfficientNet-Lite0's second stage has 24 channels.
        assert ledger["delta_mean"].shape == (2, 24)
    assert "64 images in 1 shard" in session.outcomes["imagenet-advbn advbn-lite0"].out


@pytest.mark.usefixtures("session")
def test_the_encoder_is_the_published_network_up_to_its_first_stage(weights: dict[str, Tensor]) -> None:
    def normalised(feat: Tensor, name: str) -> Tensor:
        mean, var, weight, bias = (
            weights[f"{name}.{part}"].view(-1, 1, 1) for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (feat - mean) / (var + 1e-5).sqrt() * weight + bias

    image = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    feat = (image - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    feat = normalised(F.conv2d(feat, weights["conv1.weight"], padding=1), "bn1").relu()
    for block in range(3):
        name = f"layer1.{block}"
        inner = normalised(F.conv2d(feat, weights[f"{name}.conv1.weight"], padding=1), f"{name}.bn1").relu()
        feat = (normalised(F.conv2d(inner, weights[f"{name}.conv2.weight"], padding=1), f"{name}.bn2") + feat).relu()
    file = load_autoencoder(Path("autoencoder-cifar/autoencoder.safetensors"))
    assert (file.module.kind.name, file.module.width, file.encoder_form) == ("cifar-resnet20", 1, "akamaster")
    torch.testing.assert_close(file.module.encoder(image), feat, rtol=1e-4, atol=1e-5)


def test_the_data_set_is_of_this_autoencoder(session: Session) -> None:
    assert session.outcomes["verify advbn-cifar"].out.strip() == "advbn-cifar: all right"
    module = load_autoencoder(Path("autoencoder-cifar/autoencoder.safetensors")).module
    stored = advbn_gen.LabelledImages("reconstructed-cifar")
    originals = sorted(Path("drawn/val").glob("*/*.png"))[:64]
    assert len(stored) == len(originals)
    for index, path in enumerate(originals[:5]):
        expected = module(pixels(path)[None])[0].clamp(0, 1) * 255
        found = torch.from_numpy(np.array(stored[index][0])).permute(2, 0, 1)
        assert (found - expected).abs().max() <= 0.51
    with h5py.File("advbn-cifar/perturbations.h5") as ledger:
        losses = ledger["loss"][()]
    assert (losses[:, -1] > losses[:, 0]).all()


@pytest.mark.usefixtures("session")
def test_other_weights_are_refused() -> None:
    save_published(Path("resnet32.th"), published_resnet20(stages=5))
    message = refused(
        "train-autoencoder", "--encoder", "cifar-resnet20", "--encoder-weights", "resnet32.th", "--source",
        "drawn/train", "--image-size", 32, "--out", "autoencoder-32",
    )  # fmt: skip
    assert message == "The encoder weights are not of a ResNet-20 for CIFAR-10; give resnet20-12fca82f.th."


def test_the_attack_stays_in_its_ball_and_beats_chance(session: Session, network: torch.nn.Module) -> None:
    found, objective = session.names["found"], session.names["objective"]
    (delta,) = found.parameters
    assert float((delta - 1).norm()) <= 1.5 + 1e-6
    losses = found.losses_SN.mean(1)
    label, image = session.names["label"], session.names["image"]
    torch.testing.assert_close(losses[0], F.cross_entropy(network(image), label))
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        offset = torch.randn(delta.shape, generator=generator)
        value = objective((1 + 1.5 * offset / offset.norm(),))
        assert value.loss_N.mean() < losses[-1]


def test_a_point_outside_the_ball_comes_back_to_the_nearest_one(session: Session) -> None:
    threat = session.names["L2Statistics"](3, radius=2.0, step_size=1.0)
    inside, outside = torch.tensor([[1.0, 2.0, 1.0], [0.0, 1.0, 1.0]]), torch.tensor([[1.0, 4.0, 1.0], [5.0, 1.0, 1.0]])
    assert torch.equal(threat.project((inside,))[0], inside)
    torch.testing.assert_close(threat.project((outside,))[0], torch.tensor([[1.0, 2.2, 1.0], [2.6, 1.0, 1.0]]))
    (moved,) = threat.step(threat.start(), (torch.tensor([[0.0, 3.0, 0.0], [-4.0, 0.0, 0.0]]),))
    torch.testing.assert_close(moved, torch.tensor([[1.0, 1.6, 1.0], [0.2, 1.0, 1.0]]))


def test_what_the_attack_prints_is_what_the_whole_network_does(session: Session, network: torch.nn.Module) -> None:
    image, label = session.names["image"], session.names["label"]
    delta_mean, delta_std = session.names["found"].parameters[0]

    def shifted(_module: object, _inputs: object, feat: Tensor) -> Tensor:
        mean = feat.mean((0, 2, 3))
        return torch.stack(
            [delta_std[c] * (feat[:, c] - mean[c]) + delta_mean[c] * mean[c] for c in range(feat.shape[1])], 1
        ).clamp(min=0)

    expected = []
    for attacked in (False, True):
        hook = network.get_submodule("1.layer1").register_forward_hook(shifted) if attacked else None
        logits = network(image)
        if hook:
            hook.remove()
        correct = (logits.argmax(1) == label).double().mean()
        loss = F.cross_entropy(logits, label)
        expected.append(f"{'attacked' if attacked else 'clean'}: loss {loss:.2f}, top-1 {correct:.1%}")
    assert session.printed["An attack"].splitlines() == expected


def test_the_corruption_moves_every_other_line(session: Session) -> None:
    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (6, 10, 3), dtype=np.uint8)
    found = np.asarray(session.names["interlaced"](Image.fromarray(image), 0.2))
    assert np.array_equal(found[1::2], image[1::2])
    assert np.array_equal(found[::2, 2:], image[::2, :-2])
    assert np.array_equal(found[::2, :2], np.repeat(image[::2, :1], 2, axis=1))


@pytest.mark.usefixtures("session")
def test_severities_grow() -> None:
    originals = sorted(Path("drawn/val").glob("*/*.png"))
    before = torch.stack([pixels(path) for path in originals])
    differences = []
    for severity in range(1, 6):
        root = Path("corrupted/interlaced", str(severity))
        assert sorted(path.relative_to(root) for path in root.glob("*/*")) == [
            path.relative_to("drawn/val") for path in originals
        ]
        after = torch.stack([pixels(root / path.relative_to("drawn/val")) for path in originals])
        differences.append(float((after - before).abs().mean()))
    assert differences == sorted(differences)
    assert differences[0] > 0


def test_the_scores_of_the_corruption_are_the_networks(session: Session, network: torch.nn.Module) -> None:
    errors = []
    outcome = session.outcomes["score interlaced-5=corrupted/interlaced/5"]
    severities = {f"interlaced-{number}": f"corrupted/interlaced/{number}" for number in range(1, 6)}
    for name, root in {"clean": "drawn/val", **severities}.items():
        paths = sorted(Path(root).glob("*/*.png"))
        correct = predictions(network, paths).argmax(1) == labels_of(Path(root), paths)
        errors.append(1 - float(correct.double().mean()))
        assert row(outcome, name)[2:4] == [str(len(paths)), f"{1 - errors[-1]:.1%}"]
    printed = f"error {errors[0]:.1%} clean, {np.mean(errors[1:]):.1%} as the mean of five severities"
    assert session.printed["A corruption"].strip() == printed


@pytest.mark.usefixtures("session")
def test_evaluate_has_no_other_corruptions() -> None:
    message = refused("evaluate", "--model", "classifier", "--imagenet-c", "corrupted", "--out", "evaluation")
    assert "holds none of ImageNet-C's corruptions, but interlaced" in message


def test_the_own_test_set_is_scored_by_the_networks_outputs(session: Session, network: torch.nn.Module) -> None:
    labels = dict(csv.reader(Path("labels.csv").read_text(encoding="utf-8").splitlines()))
    assert len(labels) == 3 * FEW["val"]
    shapes = ("circle", "heart", "star")
    outputs = [sorted(path.name for path in Path("drawn/train").iterdir()).index(shape) for shape in shapes]
    logits = predictions(network, [Path("photographs", name) for name in labels])
    own_word = ("disc", "valentine", "pentagram")
    true = torch.tensor([outputs[own_word.index(word)] for word in labels.values()])
    among = torch.tensor(outputs)[logits[:, outputs].argmax(1)]
    top1, present = ((found == true).double().mean() for found in (logits.argmax(1), among))
    cells = row(session.outcomes["score scores"], "own")
    assert cells[2:4] == ["48", f"{top1:.1%} ({present:.1%} of 3 classes)"]
    evaluated = command("evaluate", "--model", "classifier", "--imagenet", "own", "--out", "evaluated", "--json")
    assert [each["top1"] for each in evaluated.result["results"]] == [float(top1)]


@pytest.mark.usefixtures("session")
def test_folders_in_own_words_are_refused() -> None:
    for path in Path("own").glob("*/*.png"):
        folder = Path("words", f"word-{path.parent.name}")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / path.name).write_bytes(path.read_bytes())
    message = refused("score", "--model", "classifier", "--data", "own=words", "--out", "refused")
    assert "has 12 classes, but the data set own (words) has 3" in message


def test_the_places_of_a_named_test_set_are_those_of_the_page() -> None:
    table = re.findall(r"^\| `(\w+/\w+\.(?:py|md))` \| (.*) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert [path for path, _ in table] == [
        "downstream/suites.py", "commands/evaluate.py", "reports/shift_tables.py", "docs/shift.md",
    ]  # fmt: skip
    drawn = ("sources/drawn/shifts.py", "`SHIFT_SETS`, `MOST_PER_CLASS`, `_SET_NUMBERS` and `_DRAW`")
    assert "{1} of `{0}`".format(*drawn) in PAGE.read_text(encoding="utf-8")
    for path, text in (*table[:3], drawn):
        module = import_module(path.removesuffix(".py").replace("/", "."))
        names = re.findall(r"`(\w+)`", text)
        assert names
        assert [name for name in names if not hasattr(module, name)] == []
    module_name, _, name = COMMANDS["evaluate"].partition(":")
    options = {option for each in getattr(import_module(module_name), name).params for option in each.opts}
    paths = import_module(module_name)._PATH_OPTIONS
    layouts = (ROOT / "docs/shift.md").read_text(encoding="utf-8")
    for suite in OTHERS:
        assert suite.replace("-", "_") in {each.name for each in fields(TestSetPaths)}
        assert suite.replace("-", "_") in paths
        assert f"--{suite}" in options
        assert suite in shift_tables._OTHER_NAMES
        assert f"`--{suite}`" in layouts
