"""A user's mistake is reported in one plain sentence before any work starts."""

import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from basics.ownership import lock_folder
from pipeline.drawn_networks import CACHE_VARIABLE, cache_folder
from tests.pipeline.world import World
from tests.processes import finish, start
from tests.support import advbn_gen, folder_bytes, image_folder, refused, tiny_autoencoder, tiny_classifier


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.build(tmp_path_factory.mktemp("world"))


@pytest.fixture
def out(tmp_path: Path) -> Iterator[Path]:
    """An output folder that a refused command must not have made."""
    folder = tmp_path / "out"
    yield folder
    assert not folder.exists()


class Bomb:
    """Its pickle makes a file when it is loaded by `pickle.load`."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.trace),))


def pickle_with_code(path: Path) -> tuple[Path, Path]:
    """A checkpoint with code in it, and the folder that the code would make."""
    trace = path.with_name("code-was-run")
    torch.save({"fc.weight": torch.zeros(2), "bomb": Bomb(trace)}, path)
    return path, trace


@pytest.mark.parametrize(
    "words",
    [
        ("score", "--model", "m", "--data", "d=d"),
        ("report", "gap", "--original", "o", "--reconstructed", "r", "--advbn", "a", "--model", "m"),
        ("train-autoencoder", "--encoder", "vgg"),
    ],
)
def test_an_output_that_has_to_lie_on_this_machine(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert refused(*words, "--out", "s3://bucket/x") == (
        "--out is s3://bucket/x, on another file system; give a path on this machine."
    )
    assert not list(tmp_path.iterdir())


class TestSource:
    def test_missing(self, world: World, out: Path, tmp_path: Path) -> None:
        assert str(tmp_path / "absent") in refused(*world.words(out, source=tmp_path / "absent"))

    def test_empty_folder(self, world: World, out: Path, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        message = refused(*world.words(out, source=tmp_path / "empty"))
        assert str(tmp_path / "empty") in message
        assert "no images" in message

    def test_folder_without_images(self, world: World, out: Path, tmp_path: Path) -> None:
        (tmp_path / "texts/n01440764").mkdir(parents=True)
        (tmp_path / "texts/n01440764/notes.txt").write_text("no image")
        assert "holds no images" in refused(*world.words(out, source=tmp_path / "texts"))

    def test_an_address_that_is_nowhere(self, world: World, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("ADVBN_SOURCE", raising=False)
        assert "no-such-folder" in refused(*world.words(out, source="no-such-folder"))

    def test_no_tar(self, world: World, out: Path, tmp_path: Path) -> None:
        (tmp_path / "x.tar").write_bytes(b"this is no tar" * 100)
        assert str(tmp_path / "x.tar") in refused(*world.words(out, source=tmp_path / "x.tar"))

    @pytest.mark.slow
    def test_other_addresses(self, world: World, out: Path) -> None:
        assert "s3://bucket/x" in refused(*world.words(out, source="s3://bucket/x"))

    def test_missing_labels_and_order(self, world: World, out: Path) -> None:
        assert "absent.txt" in refused(*world.words(out, labels="absent.txt"))
        assert "absent.txt" in refused(*world.words(out, order="absent.txt"))


class TestNetworks:
    @pytest.mark.parametrize("found", [10, 999])
    def test_class_count_that_does_not_fit(self, world: World, out: Path, tmp_path: Path, found: int) -> None:
        classifier = tiny_classifier(tmp_path / "c.safetensors", found)
        message = refused(*world.words(out, classifier_weights=classifier))
        assert f"has {found} classes" in message
        assert "1000" in message

    def test_imagenet_classifier_on_other_labels(self, world: World, out: Path, tmp_path: Path) -> None:
        source = image_folder(tmp_path / "own", per_class=2, classes=("circle", "square"))
        assert "has 1000 classes but the data set's labels need 2" in refused(*world.words(out, source=source))

    def test_unknown_encoder(self, world: World, out: Path) -> None:
        message = refused(*world.words(out, encoder="vgg16"))
        assert "'vgg16'" in message
        assert "resnet, vgg" in message

    def test_unknown_classifier(self, world: World, out: Path) -> None:
        message = refused(*world.words(out, classifier="vgg190", classifier_weights="seed:0"))
        assert "'vgg190'" in message

    def test_name_and_weights_that_contradict(self, world: World, out: Path) -> None:
        message = refused(*world.words(out, classifier="vgg19"))
        assert "resnet18" in message
        assert "vgg19" in message

    def test_weights_that_do_not_tell_their_network(self, world: World, out: Path, tmp_path: Path) -> None:
        save_file({"fc.weight": torch.zeros(1000, 4)}, tmp_path / "x.safetensors")
        assert "--classifier" in refused(*world.words(out, classifier_weights=tmp_path / "x.safetensors"))

    def test_weights_with_other_peoples_metadata(self, world: World, out: Path, tmp_path: Path) -> None:
        """Hugging Face's files say {"format": "pt"}."""
        save_file({"fc.weight": torch.zeros(1000, 4)}, tmp_path / "x.safetensors", {"format": "pt"})
        words = world.words(out, classifier_weights=tmp_path / "x.safetensors")
        assert "--classifier" in refused(*words)
        assert "do not fit the classifier resnet18" in refused(*words, "--classifier", "resnet18")

    def test_weights_of_another_network(self, world: World, out: Path, tmp_path: Path) -> None:
        torch.save({"fc.weight": torch.zeros(1000, 4), "stem": torch.zeros(1)}, tmp_path / "x.pth")
        message = refused(*world.words(out, classifier="resnet18", classifier_weights=tmp_path / "x.pth"))
        assert "do not fit the classifier resnet18" in message
        assert "conv1.weight" in message

    @pytest.mark.parametrize("seed", ["seed:", "seed:x", "seed:1.5"])
    def test_a_seed_that_is_no_number(self, world: World, out: Path, seed: str) -> None:
        assert seed in refused(*world.words(out, classifier="resnet18", classifier_weights=seed))

    @pytest.mark.slow
    def test_autoencoder_of_the_other_encoder(self, world: World, out: Path, tmp_path: Path) -> None:
        other = tiny_autoencoder(tmp_path / "other.safetensors", "resnet")
        message = refused(*world.words(out, autoencoder=other))
        assert str(other) in message
        assert "has the encoder resnet, not vgg" in message

    def test_no_autoencoder(self, world: World, out: Path) -> None:
        words = [str(word) for word in world.words(out)]
        index = words.index("--autoencoder")
        assert "train-autoencoder" in refused(*words[:index], *words[index + 2 :])

    @pytest.mark.parametrize("option", ["autoencoder", "classifier_weights"])
    def test_missing_file(self, world: World, out: Path, tmp_path: Path, option: str) -> None:
        message = refused(*world.words(out, **{option: tmp_path / "absent.safetensors"}))
        assert str(tmp_path / "absent.safetensors") in message

    @pytest.mark.parametrize("option", ["autoencoder", "classifier_weights"])
    @pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
    def test_truncated_file(self, world: World, out: Path, tmp_path: Path, option: str, share: float) -> None:
        whole = (world.autoencoder if option == "autoencoder" else world.classifier).read_bytes()
        (tmp_path / "cut.safetensors").write_bytes(whole[: int(len(whole) * share)])
        message = refused(*world.words(out, **{option: tmp_path / "cut.safetensors"}))
        assert "cut.safetensors" in message

    @pytest.mark.parametrize("option", ["autoencoder", "classifier_weights"])
    @pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
    def test_foreign_file(self, world: World, out: Path, tmp_path: Path, option: str, suffix: str) -> None:
        path = (tmp_path / "foreign").with_suffix(suffix)
        path.write_text("not a checkpoint at all, but a text of some length")
        more = {"classifier": "resnet18"} if option != "autoencoder" else {}
        assert str(path) in refused(*world.words(out, **{option: path}, **more))

    def test_a_classifier_given_as_autoencoder(self, world: World, out: Path) -> None:
        message = refused(*world.words(out, autoencoder=world.classifier))
        assert "is not an autoencoder" in message

    def test_a_pickle_with_code_is_not_run(self, world: World, out: Path, tmp_path: Path) -> None:
        path, trace = pickle_with_code(tmp_path / "evil.pth")
        message = refused(*world.words(out, classifier="resnet18", classifier_weights=path))
        assert str(path) in message
        assert "code" in message
        assert not trace.exists()
        with path.open("wb") as file:
            pickle.dump(Bomb(trace), file)
        assert str(path) in refused(*world.words(out, classifier="resnet18", classifier_weights=path))
        assert not trace.exists()

    def test_the_bomb_is_a_real_one(self, tmp_path: Path) -> None:
        path, trace = pickle_with_code(tmp_path / "evil.pth")
        torch.load(path, weights_only=False)
        assert trace.is_dir()


class TestNumbers:
    @pytest.mark.parametrize(
        ("option", "value", "named"),
        [
            ("eps", -0.1, "eps is -0.1"),
            ("eps", "nan", "eps is nan"),
            ("steps", -1, "steps is -1"),
            ("step-size", 0, "step size is 0"),
            ("batch-size", 0, "batch size is 0"),
            ("batch-size", -4, "batch size is -4"),
            ("batches-per-shard", 0, "batches per shard is 0"),
            ("image-size", 20, "multiple of 8"),
            ("image-size", 0, "image size is 0"),
            ("image-size", 8, "at least 16"),
            ("image-size", -16, "image size is -16"),
            ("limit", 0, "limit is 0"),
            ("limit", -1, "limit is -1"),
            ("threads", 0, "threads is 0"),
            ("workers", -1, "workers is -1"),
            ("precision", "fp16", "'fp16'"),
            ("precision", "tf32", "tf32"),
            ("device", "tpu", "'tpu'"),
            ("device", "cuda:99", "cuda:99"),
            ("device", "cpu:1", "cpu:1"),
            ("device", "", "''"),
            ("steps", "many", "many"),
            ("split", "a/b", "a/b"),
        ],
    )
    def test_impossible_values(self, world: World, out: Path, option: str, value: object, named: str) -> None:
        assert named in refused(*world.words(out, **{option: value}))

    @pytest.mark.slow
    def test_image_size_of_the_resnet_encoder(self, world: World, out: Path, tmp_path: Path) -> None:
        autoencoder = tiny_autoencoder(tmp_path / "r.safetensors", "resnet")
        changed = {"encoder": "resnet", "autoencoder": autoencoder, "image_size": 18}
        assert "multiple of 4" in refused(*world.words(out, **changed))

    def test_unknown_option(self, world: World, out: Path) -> None:
        assert "--epsilon" in refused(*world.words(out, "--epsilon", 1))


class TestOutput:
    @pytest.mark.slow
    def test_another_run(self, world: World, tmp_path: Path) -> None:
        assert world.make(tmp_path / "out", limit=8).code == 0
        before = folder_bytes(tmp_path / "out")
        message = refused(*world.words(tmp_path / "out", limit=8, eps=0.7))
        assert "attack.eps: 1.1 -> 0.7" in message
        assert folder_bytes(tmp_path / "out") == before

    @pytest.mark.slow
    def test_a_file_in_the_way(self, world: World, tmp_path: Path) -> None:
        (tmp_path / "out").write_text("mine")
        assert f"{tmp_path / 'out'} is a file" in refused(*world.words(tmp_path / "out"))
        assert str(tmp_path / "out/deeper") in refused(*world.words(tmp_path / "out/deeper"))
        assert (tmp_path / "out").read_text() == "mine"

    @pytest.mark.slow
    def test_no_write_permission(self, world: World, tmp_path: Path) -> None:
        locked = tmp_path / "locked"
        locked.mkdir()
        assert world.make(tmp_path / "first", limit=4).code == 0  # imports everything, while this user may
        with unprivileged(locked, world):
            message = refused(*world.words(locked / "out", limit=4))
            existing = refused(*world.words(locked, limit=4))
        assert str(locked / "out") in message
        assert "Permission denied" in message
        assert str(locked) in existing
        assert list(locked.iterdir()) == []

    @pytest.mark.slow
    def test_a_read_only_file_system(self, world: World) -> None:
        target = Path("/proc/advbn-gen-test")
        code, out, err = finish(start(*world.words(target, limit=4)))
        assert (code, out) == (2, "")
        assert str(target) in err
        assert "Traceback" not in err


class unprivileged:  # noqa: N801 (a context manager)
    """Be a user for whom permissions hold: `locked` can be read, the world's files too."""

    def __init__(self, locked: Path, world: World) -> None:
        self.locked, self.world = locked, world

    def __enter__(self) -> None:
        for folder in (self.locked.parent, *list(self.locked.parents)[1:3], self.world.source.parent):
            folder.chmod(0o755)
        for folder in self.world.source.parent.parents:
            if folder.name.startswith("pytest-"):
                folder.chmod(0o755)
        self.locked.chmod(0o555)
        self.root = os.geteuid() == 0
        if self.root:
            os.seteuid(65534)

    def __exit__(self, *error: object) -> None:
        if self.root:
            os.seteuid(0)
        self.locked.chmod(0o755)


class TestTraining:
    """`train-autoencoder` and `import-autoencoder`."""

    @pytest.fixture
    def words(self, world: World, out: Path) -> list[object]:
        return [
            "train-autoencoder", "--encoder", "vgg", "--source", world.source, "--encoder-weights", "seed:0", "--width",
            0.0625, "--image-size", 16, "--batch-size", 8, "--epochs", 1, "--device", "cpu", "--out", out,
        ]  # fmt: skip

    @pytest.mark.parametrize(
        ("option", "value", "named"),
        [
            ("encoder", "vgg16", "'vgg16'"),
            ("source", "/absent", "/absent"),
            ("val", "/absent", "/absent"),
            ("encoder-weights", "/absent.pth", "/absent.pth"),
            ("encoder-weights", "seed:x", "seed:x"),
            ("image-size", 20, "multiple of 8"),
            ("width", 0, "width is 0"),
            ("width", 2, "width is 2"),
            ("epochs", 0, "epochs is 0"),
            ("batch-size", 0, "batch size is 0"),
            ("batch-size", 1000, "fewer than one batch"),
            ("lr", 0, "learning rate is 0"),
            ("lr", "nan", "learning rate is nan"),
            ("limit", 0, "0"),
            ("limit", -1, "limit is -1"),
            ("loaders", -1, "loaders is -1"),
            ("devices", 3, "does not divide"),
            ("devices", 0, "devices is 0"),
            ("checkpoint-every", 0, "checkpoint every is 0"),
            ("precision", "fp16", "'fp16'"),
            ("device", "tpu", "'tpu'"),
        ],
    )
    def test_impossible_values(self, words: list[object], option: str, value: object, named: str) -> None:
        assert named in refused(*words, f"--{option}", value)

    def test_encoder_weights_with_code(self, words: list[object], tmp_path: Path) -> None:
        path, trace = pickle_with_code(tmp_path / "evil.pth")
        assert str(path) in refused(*words, "--encoder-weights", path)
        assert not trace.exists()

    def test_a_file_as_run_folder(self, words: list[object], tmp_path: Path) -> None:
        (tmp_path / "file").write_text("mine")
        assert "is a file" in refused(*words, "--out", tmp_path / "file")


@pytest.mark.slow
def test_a_user_sees_one_line_and_no_traceback(world: World, tmp_path: Path) -> None:
    """The same through a real process."""
    code, out, err = finish(start(*world.words(tmp_path / "out", eps=-1)))
    assert (code, out) == (2, "")
    assert err.splitlines() == ["Error: eps is -1.0; give a number that is not negative (published: 1.1)."]
    assert not (tmp_path / "out").exists()


def test_a_cache_in_use_is_named_with_its_own_mend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no --out to give: the folder of these networks is the user's cache."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    with lock_folder(cache_folder() / "classifier-resnet50"):
        done = advbn_gen("imagenet-advbn", "--encoder", "resnet", "--out", tmp_path / "out")
    assert done.code == 2
    assert done.err.endswith("wait for it, or set ADVBN_CACHE to another folder.\n")
