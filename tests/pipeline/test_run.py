"""Resume, refusal and overwriting of runs, through the command line."""

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from networks.classifiers import build_network
from sources.base import ImageRecord
from sources.folder import FolderSource
from sources.opening import open_source
from tests.pipeline.world import IMAGES, NAME, PER_CLASS, SHARDS, World, broken_image, tar_of, without_addresses
from tests.support import advbn_gen, folder_bytes, image_folder, refused, seeded


def times(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.tar")}


@pytest.mark.slow
def test_a_run_reports_what_it_made(world: World, tmp_path: Path, finished: Path) -> None:
    outcome = world.make(tmp_path / "out", "--json")
    assert outcome.code == 0
    assert len(outcome.out.splitlines()) == 1
    result = outcome.result
    assert (result["images"], result["shards"], result["made"]) == (IMAGES, SHARDS, SHARDS)
    assert result["folders"] == {"imagenet-advbn-vgg": str(tmp_path / "out")}
    assert folder_bytes(tmp_path / "out") == folder_bytes(finished)


def test_a_finished_run_is_left_as_it_is(world: World, copied: Path, finished: Path) -> None:
    before = times(copied)
    outcome = world.make(copied, "--json")
    assert outcome.result["made"] == 0
    assert times(copied) == before
    assert folder_bytes(copied) == folder_bytes(finished)


@pytest.mark.slow
def test_a_run_folder_stands_for_its_autoencoder(world: World, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    shutil.copy(world.autoencoder, folder / "autoencoder.safetensors")
    named, meant = (
        world.make(tmp_path / "out", "--dry-run", "--json", autoencoder=path) for path in (world.autoencoder, folder)
    )
    assert named.result["identity"] == meant.result["identity"]


@pytest.mark.slow
def test_images_much_smaller_than_the_classifier_is_meant_for_are_named(world: World, tmp_path: Path) -> None:
    def said(classifier: object, size: int = 16) -> bool:
        outcome = world.make(tmp_path / "out", "--dry-run", image_size=size, classifier_weights=classifier)
        assert outcome.code == 0, outcome.err
        return "and these have" in outcome.err

    file = tmp_path / "classifier.safetensors"
    assert said(World.build_classifier(file, image_size=32))
    assert not said(World.build_classifier(file, image_size=24))
    assert not said(world.classifier)


@pytest.mark.slow
def test_images_much_smaller_than_those_of_published_weights_are_named(world: World, tmp_path: Path) -> None:
    with seeded(0):
        torch.save(build_network("squeezenet1_1", 1000).state_dict(), tmp_path / "weights.pth")

    def notice(weights: object, size: int) -> str:
        outcome = world.make(
            tmp_path / "out", "--dry-run", image_size=size, classifier="squeezenet1_1", classifier_weights=weights
        )
        assert outcome.code == 0, outcome.err
        return next((line for line in outcome.err.splitlines() if "meant for" in line), "")

    assert notice(tmp_path / "weights.pth", 64) == (
        "The attacked classifier squeezenet1_1 is meant for images of 224 px, and these have 64 px: its accuracy may "
        "be low on the originals already."
    )
    assert not notice(tmp_path / "weights.pth", 136)
    assert not notice("seed:0", 64)


@pytest.mark.slow
def test_only_what_is_missing_is_made(world: World, copied: Path, finished: Path) -> None:
    before = times(copied)
    tar_of(copied, 2).unlink()
    (copied / "stats/000005.json").unlink()
    (copied / "stats/000007.h5").write_bytes(b"")
    outcome = world.make(copied, "--json")
    assert outcome.result["made"] == 3
    made = {tar_of(copied, shard).name for shard in (2, 5, 7)}
    after = times(copied)
    assert {name for name in after if after[name] != before[name]} == made
    assert folder_bytes(copied) == folder_bytes(finished)


@pytest.mark.slow
def test_a_run_does_not_go_on_over_originals_that_were_made_anew(
    world: World, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The names and labels are those of the finished shards."""
    source, out = tmp_path / "source", tmp_path / "out"
    begun = replace(world, source=Path(shutil.copytree(world.source, source)))
    last = source / open_source(str(source)).records[IMAGES - 1].name
    broken_image(last)
    assert "1 of 12 shards could not be made" in begun.make(out).err
    before = folder_bytes(out)
    shutil.rmtree(source)
    image_folder(source, per_class=PER_CLASS, seed=1)
    said = refused(*begun.words(out))
    assert re.search(r"original \S+\.JPEG is no longer the file that shard 0 in .* was made of.*--overwrite", said)
    assert folder_bytes(out) == before
    # Originals of finished shards may be gone: they are not needed.
    shutil.rmtree(source)
    shutil.copytree(world.source, source)
    names = {record.name for record in open_source(str(source)).records[: IMAGES - 4]}
    really = FolderSource.read

    def read(self: FolderSource, record: ImageRecord) -> bytes:
        if record.name in names:
            raise FileNotFoundError(record.name)
        return really(self, record)

    monkeypatch.setattr(FolderSource, "read", read)
    assert begun.make(out).code == 0
    assert without_addresses(folder_bytes(out)) == without_addresses(folder_bytes(finished))


@pytest.mark.slow
def test_left_overs_of_a_killed_run_are_cleared(world: World, copied: Path, finished: Path) -> None:
    left = copied / "working-x1.tmp"
    left.mkdir()
    (left / tar_of(copied, 1).name).write_bytes(b"half")
    (copied / "manifest.json.tmp").write_bytes(b"half")
    assert world.make(copied).code == 0
    assert folder_bytes(copied) == folder_bytes(finished)


@pytest.mark.slow
def test_progress_does_not_count_what_was_there(world: World, copied: Path) -> None:
    tar_of(copied, 11).unlink()
    (line,) = (line for line in world.make(copied).err.splitlines() if "images/s" in line)
    assert f"{IMAGES}/{IMAGES} images" in line


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"eps": 0.5}, "attack.eps: 1.1 -> 0.5"),
        ({"steps": 3}, "attack.steps: 2 -> 3"),
        ({"batch_size": 8}, "batches.batch_size: 4 -> 8"),
        ({"image_size": 24}, "images.image_size: 16 -> 24"),
        ({"limit": 20}, f"images.count: {IMAGES} -> 20"),
        ({"threads": 2}, "arithmetic.threads: 1 -> 2"),
        ({"precision": "fp64"}, "arithmetic.precision: fp32 -> fp64"),
    ],
)
def test_another_run_is_refused_with_the_difference(
    world: World, copied: Path, finished: Path, changed: dict[str, object], named: str
) -> None:
    said = refused(*world.words(copied, **changed))
    assert named in said
    assert "--overwrite" in said
    assert folder_bytes(copied) == folder_bytes(finished)


def test_other_weights_are_refused(world: World, copied: Path, tmp_path: Path) -> None:
    from tests.support import tiny_autoencoder

    other = tiny_autoencoder(tmp_path / "other.safetensors", seed=9)
    assert "autoencoder.sha256" in refused(*world.words(copied, autoencoder=other))


def test_another_list_of_images_is_refused(world: World, copied: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(world.source, tmp_path / "source"))
    first = min(source.rglob("*.JPEG"))
    first.rename(first.with_stem("renamed"))
    assert "images.records_sha256" in refused(*world.words(copied, source=source))


@pytest.mark.slow
def test_equal_networks_and_images_elsewhere_are_the_same_run(world: World, copied: Path, tmp_path: Path) -> None:
    moved = World(
        source=Path(shutil.copytree(world.source, tmp_path / "source")),
        autoencoder=Path(shutil.copy(world.autoencoder, tmp_path / "a.safetensors")),
        classifier=Path(shutil.copy(world.classifier, tmp_path / "c.safetensors")),
    )
    outcome = moved.make(copied, "--json")
    assert outcome.code == 0
    assert outcome.result["made"] == 0


@pytest.mark.slow
def test_overwriting_starts_anew_and_leaves_a_users_own_files(world: World, copied: Path, tmp_path: Path) -> None:
    tars = ("other-val-000000", f"{NAME}-val-backup", f"{NAME}-train-000000", f"{NAME}-val-000012")
    own = {"notes.txt": b"mine", "figures/one.png": b"mine", **{f"{name}.tar": b"mine" for name in tars}}
    (copied / "figures").mkdir()
    for name, content in own.items():
        (copied / name).write_bytes(content)
    outcome = world.make(copied, "--overwrite", "--json", eps=0.5, limit=20)
    assert outcome.result["made"] == 5
    plain = tmp_path / "plain"
    assert world.make(plain, eps=0.5, limit=20).code == 0
    assert folder_bytes(copied) == folder_bytes(plain) | own


def test_a_foreign_folder_is_refused_and_left_alone(world: World, tmp_path: Path) -> None:
    out = tmp_path / "photos"
    out.mkdir()
    (out / "holiday.jpg").write_bytes(b"mine")
    for more in ([], ["--overwrite"]):
        assert "holds files that are not" in refused(*world.words(out, *more))
        assert folder_bytes(out) == {"holiday.jpg": b"mine"}


def test_an_empty_folder_may_be_given(world: World, tmp_path: Path) -> None:
    assert world.make(tmp_path, limit=4).code == 0


@pytest.mark.slow
def test_a_dry_run_prints_the_plan_and_writes_nothing(world: World, tmp_path: Path, copied: Path) -> None:
    outcome = world.make(tmp_path / "out", "--dry-run", "--json")
    assert outcome.code == 0
    assert (outcome.result["images"], outcome.result["shards"]) == (IMAGES, SHARDS)
    assert outcome.result["missing"] == list(range(SHARDS))
    assert not (tmp_path / "out").exists()
    tar_of(copied, 4).unlink()
    assert world.make(copied, "--dry-run", "--json").result["missing"] == [4]


def test_a_command_that_makes_nothing_changes_no_address(world: World, copied: Path) -> None:
    before = folder_bytes(copied)
    other = image_folder(copied.parent / "other", per_class=17, side=44)
    assert world.make(copied, source=other).code == 0
    assert folder_bytes(copied) == before


@pytest.mark.slow
def test_shards_that_vanish_during_a_run_are_reported(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline import run as running

    log = running._log

    def remove_a_mark(job: Any, result: Any) -> None:
        log(job, result)
        if result.shard == 5:
            (tmp_path / "out/stats/000002.json").unlink()

    monkeypatch.setattr(running, "_log", remove_a_mark)
    done = world.make(tmp_path / "out")
    assert done.code == 1
    assert "shard 2: it was removed or changed while the run went on" in done.err
    monkeypatch.undo()
    assert world.make(tmp_path / "out").code == 0


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_damaged_manifest_is_mended_by_the_command_that_made_it(
    world: World, copied: Path, finished: Path, share: float
) -> None:
    manifest = copied / "manifest.json"
    manifest.write_bytes(manifest.read_bytes()[: int(manifest.stat().st_size * share)])
    assert "run the command that made it again" in refused("verify", copied)
    assert world.make(copied).code == 0
    assert len(folder_bytes(copied)) == len(folder_bytes(finished))
    assert folder_bytes(copied) == folder_bytes(finished)


class TestBrokenImage:
    """One broken image among good ones."""

    @pytest.fixture
    def own(self, world: World, tmp_path: Path) -> World:
        source = image_folder(tmp_path / "source", per_class=PER_CLASS)
        return World(source=source, autoencoder=world.autoencoder, classifier=world.classifier)

    @pytest.mark.slow
    def test_it_fails_its_shard_by_name_and_a_mended_file_completes(
        self, own: World, tmp_path: Path, finished: Path
    ) -> None:
        out, name = tmp_path / "out", "n02102040/n02102040_5.JPEG"
        whole = broken_image(own.source / name)
        outcome = own.make(out, "--json")
        assert outcome.code == 1
        assert outcome.out == ""
        assert "Traceback" not in outcome.err
        assert name in outcome.err
        # By name, _10 to _16 precede _5: it is image 17 + 12, in batch 7.
        assert "1 of 12 shards could not be made" in outcome.err
        assert "shard 7: " in outcome.err
        assert not tar_of(out, 7).exists()
        assert not list(out.rglob("*.tmp"))
        for shard in set(range(SHARDS)) - {7}:
            assert tar_of(out, shard).read_bytes() == tar_of(finished, shard).read_bytes()
        (own.source / name).write_bytes(whole)
        again = own.make(out, "--json")
        assert again.code == 0
        assert again.result["made"] == 1
        assert without_addresses(folder_bytes(out)) == without_addresses(folder_bytes(finished))

    @pytest.mark.slow
    def test_verify_says_that_it_is_not_finished(self, own: World, tmp_path: Path) -> None:
        broken_image(own.source / "n03000684/n03000684_0.JPEG")
        assert own.make(tmp_path / "out").code == 1
        outcome = advbn_gen("verify", tmp_path / "out", "--json")
        assert outcome.code == 1
        assert any("not finished" in text for text in outcome.result["problems"])
