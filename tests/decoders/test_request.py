"""`train-autoencoder` through the command line: resume bit for bit, refusals, held-out images, two processes."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from tests.disk import resize
from tests.processes import finish, start, wait_until
from tests.support import Outcome, advbn_gen, image_folder, refused, tiny_classifier


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return image_folder(tmp_path_factory.mktemp("images") / "source", per_class=14)


def words(source: Path, out: Path, *more: object, **changed: object) -> list[object]:
    options: dict[str, object] = {
        "encoder": "vgg", "source": source, "encoder-weights": "seed:0", "width": 0.0625, "image-size": 16,
        "batch-size": 4, "epochs": 3, "lr": 1e-3, "checkpoint-every": 3, "device": "cpu", "out": out,
    }  # fmt: skip
    options |= {name.replace("_", "-"): value for name, value in changed.items()}
    return ["train-autoencoder", *(word for name, value in options.items() for word in (f"--{name}", value)), *more]


def fit(source: Path, out: Path, *more: object, **changed: object) -> Outcome:
    outcome = advbn_gen(*words(source, out, *more, **changed))
    assert outcome.code == 0, outcome.err
    return outcome


def results(out: Path) -> tuple[dict[str, object], dict[str, bytes], list[dict[str, object]]]:
    """Weights with what the file tells of them, pictures, and metrics without the speed; all to the last bit."""
    pictures = {path.name: path.read_bytes() for path in (out / "reconstructions").iterdir()}
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        line.pop("images_per_second", None)
    content: dict[str, object] = {}
    with safe_open(out / "autoencoder.safetensors", framework="np") as file:
        content |= {name: file.get_tensor(name).tobytes() for name in file.keys()}  # noqa: SIM118 (no mapping)
        content |= file.metadata()
    return content, pictures, lines


@pytest.fixture(scope="module")
def uninterrupted(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    fit(source, out)
    return out


def test_a_run_leaves_what_it_promises(uninterrupted: Path) -> None:
    assert {path.name for path in uninterrupted.iterdir()} >= {
        "autoencoder.safetensors", "metrics.jsonl", "reconstructions", "settings.json", "checkpoint.pt",
    }  # fmt: skip
    content = json.loads((uninterrupted / "settings.json").read_text())["content"]
    assert {kind: len(marks) for kind, marks in content.items()} == {"training": 32, "held-out": 2}
    _, pictures, lines = results(uninterrupted)
    assert len(pictures) == 3
    # 42 images less 2 held out are 10 batches an epoch, logged every third step and at the end of the epoch.
    assert [line["step"] for line in lines if "loss" in line] == [3, 6, 9, 10, 12, 15, 18, 20, 21, 24, 27, 30]


@pytest.mark.slow
def test_the_same_command_twice_gives_the_same_bits(source: Path, tmp_path: Path, uninterrupted: Path) -> None:
    fit(source, tmp_path / "run")
    assert results(tmp_path / "run") == results(uninterrupted)


def test_a_finished_run_is_left_as_it_is(source: Path, uninterrupted: Path) -> None:
    before = results(uninterrupted)
    fit(source, uninterrupted)
    assert results(uninterrupted) == before


@pytest.mark.slow
def test_a_killed_and_resumed_run_ends_with_the_same_bits(source: Path, tmp_path: Path, uninterrupted: Path) -> None:
    out = tmp_path / "run"
    process = start(*words(source, out))
    assert wait_until((out / "checkpoint.pt").exists, process)
    os.kill(process.pid, signal.SIGKILL)
    finish(process)
    done = torch.load(out / "checkpoint.pt", weights_only=False)["done"]
    assert 3 <= done < 30, "the run was over before it was killed"
    fit(source, out)
    assert results(out) == results(uninterrupted)


@pytest.mark.slow
def test_a_line_of_metrics_cut_by_a_kill_is_made_again(source: Path, tmp_path: Path, uninterrupted: Path) -> None:
    out = tmp_path / "run"
    fit(source, out)
    with (out / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 9, "st')
    fit(source, out)
    assert results(out) == results(uninterrupted)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"lr": 0.01}, "training.lr: 0.001 -> 0.01"),
        ({"epochs": 2}, "holds 3 epochs already"),
        ({"seed": 1}, "training.seed: 0 -> 1"),
        ({"encoder_weights": "seed:1"}, "encoder_sha256: "),
        ({"width": 0.125}, "width: 0.0625 -> 0.125"),
        ({"limit": 30}, "images: 40 -> 29"),
    ],
)
def test_other_settings_are_refused(source: Path, uninterrupted: Path, changed: dict[str, object], named: str) -> None:
    before = results(uninterrupted)
    assert named in refused(*words(source, uninterrupted, **changed))
    assert results(uninterrupted) == before


@pytest.mark.slow
def test_a_lost_file_of_a_finished_run_is_written_again(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    fit(source, out)
    before = results(out)
    whole = (out / "autoencoder.safetensors").read_bytes()
    (out / "autoencoder.safetensors").unlink()
    fit(source, out)
    assert results(out) == before
    assert (out / "autoencoder.safetensors").read_bytes() == whole


@pytest.mark.slow
def test_a_moved_source_and_more_loaders_go_on(source: Path, tmp_path: Path, uninterrupted: Path) -> None:
    out = tmp_path / "run"
    fit(source, out, epochs=1)
    moved = Path(shutil.copytree(source, tmp_path / "moved"))
    fit(moved, out, loaders=1, checkpoint_every=7)
    weights, _, lines = results(out)
    expected, _, expected_lines = results(uninterrupted)
    assert {name: weights[name] for name in weights if "." in name} == {
        name: expected[name] for name in expected if "." in name
    }
    assert lines[-1] == expected_lines[-1]


def test_a_run_inside_its_source_is_refused(source: Path) -> None:
    before = sorted(source.rglob("*"))
    for out in (source, source / "run", source.parent):
        assert "lie within each other" in refused(*words(source, out))
    assert sorted(source.rglob("*")) == before


@pytest.mark.slow
def test_a_full_disk_is_said_and_the_run_goes_on(source: Path, disk: Path, uninterrupted: Path) -> None:
    for kibibytes in (4, 100, 200, 300, 400, 520):
        out = disk / str(kibibytes)
        resize(disk, kibibytes)
        outcome = advbn_gen(*words(source, out))
        assert outcome.code in {1, 2}, f"the disk was not full: {outcome}"
        assert "No space left on device" in outcome.err
        assert "Traceback" not in outcome.err
        resize(disk, 32 * 1024)
        fit(source, out)
        assert results(out) == results(uninterrupted)
        shutil.rmtree(out)


@pytest.mark.slow
def test_overwriting_starts_anew(source: Path, tmp_path: Path, uninterrupted: Path) -> None:
    out = tmp_path / "run"
    fit(source, out, epochs=4)
    (out / "notes.txt").write_text("mine")
    fit(source, out, "--overwrite")
    assert results(out) == results(uninterrupted)
    assert (out / "notes.txt").read_text() == "mine"


@pytest.mark.slow
def test_held_out_images_may_be_given(source: Path, tmp_path: Path) -> None:
    val = image_folder(tmp_path / "val", per_class=3)
    outcome = fit(source, tmp_path / "run", "--json", val=val, epochs=1)
    assert outcome.result["held_out"] == 9
    assert outcome.result["images"] == 42


@pytest.mark.slow
def test_two_processes_share_a_batch(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = words(source, out, "--json", devices=2, epochs=2)
    code, stdout, stderr = finish(start(*command))
    assert code == 0, stderr
    assert len(stdout.splitlines()) == 1, stdout
    weights, pictures, lines = results(out)
    assert weights
    assert len(pictures) == 2
    assert [line["step"] for line in lines if "loss" in line] == [3, 6, 9, 10, 12, 15, 18, 20]
    alone = tmp_path / "alone"
    fit(source, alone, epochs=2)
    # The gradient of a batch is the mean of its halves' gradients: the same training up to rounding.
    ends = [results(folder)[2][-1]["held_out_mse"] for folder in (out, alone)]
    assert ends[0] == pytest.approx(ends[1], rel=1e-3)


def test_weights_that_go_with_other_colours_than_the_encoders_are_refused(source: Path, tmp_path: Path) -> None:
    weights = tiny_classifier(tmp_path / "vgg.safetensors", 3, "vgg19", mean=[0.5] * 3, std=[0.25] * 3)
    message = refused(*words(source, tmp_path / "run", encoder_weights=weights))
    assert "go with colours of their own" in message
    assert "the encoder vgg prepares ImageNet's; give weights trained with these" in message
    usual = tiny_classifier(tmp_path / "usual.safetensors", 3, "vgg19")
    assert "colours" not in advbn_gen(*words(source, tmp_path / "run", "--limit", 8, encoder_weights=usual)).err
