"""What may be scored on, and what is refused."""

import shutil
from pathlib import Path

import pytest

from basics.errors import UserError
from downstream.testset import open_test_set
from tests.pipeline.world import forge_json, tar_of
from tests.support import image_folder
from tests.trio import Trio


def test_keys_are_the_same_for_an_original_and_its_versions(trio: Trio) -> None:
    original, made = open_test_set("o", str(trio.world.source)), open_test_set("a", str(trio.advbn))
    assert list(original.keys[:48]) == list(made.keys)
    assert original.labels[:48] == made.labels
    assert (len(original.records), len(made.records)) == (51, 48)
    assert made.manifest is not None
    assert original.manifest is None


def test_shards_by_pattern(trio: Trio) -> None:
    pattern = trio.advbn / "imagenet-advbn-vgg-val-{000000..000011}.tar"
    found = open_test_set("a", str(pattern))
    assert (len(found.records), found.folder) == (48, trio.advbn)


def test_a_limit_takes_the_first(trio: Trio) -> None:
    found = open_test_set("a", str(trio.advbn), limit=10)
    assert list(found.keys) == list(open_test_set("a", str(trio.advbn)).keys[:10])
    with pytest.raises(UserError, match="--limit is 0"):
        open_test_set("a", str(trio.advbn), limit=0)


def test_another_order_of_the_same_samples(trio: Trio) -> None:
    found = open_test_set("a", str(trio.advbn))
    wanted = [found.keys[7], found.keys[3]]
    turned = found.in_order(wanted)
    assert [record.name.split("/")[1] for record in turned.records] == [f"{key}.png" for key in wanted]
    with pytest.raises(KeyError):
        found.in_order(["stranger"])


@pytest.mark.parametrize("name", ["", "a b", "a/b", "a=b", ".", "..", ".hidden"])
def test_names_that_tables_cannot_have(trio: Trio, name: str) -> None:
    with pytest.raises(UserError, match="give a name of letters"):
        open_test_set(name, str(trio.advbn))


@pytest.fixture
def copied(trio: Trio, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trio.advbn, tmp_path / "copied"))


def test_a_flipped_byte_is_found(copied: Path) -> None:
    tar = tar_of(copied, 3)
    content = bytearray(tar.read_bytes())
    content[len(content) // 2] ^= 1
    tar.write_bytes(content)
    with pytest.raises(UserError, match=r"is damaged \(.*000003\.tar: the checksum .* verify --repair"):
        open_test_set("a", str(copied))


def test_a_missing_shard_is_found(copied: Path) -> None:
    tar_of(copied, 3).unlink()
    with pytest.raises(UserError, match=r"000003\.tar: the shard is missing"):
        open_test_set("a", str(copied))


def test_a_part_of_the_shards_is_a_mismatch_of_counts(trio: Trio) -> None:
    with pytest.raises(UserError, match="holds 24 samples, but its manifest says 48"):
        open_test_set("a", str(trio.advbn / "imagenet-advbn-vgg-val-{000000..000005}.tar"))


def test_an_unfinished_data_set_is_refused(copied: Path) -> None:
    forge_json(copied / "manifest.json", complete=False)
    with pytest.raises(UserError, match="is not finished"):
        open_test_set("a", str(copied))


def test_other_sources_have_no_manifest_to_ask(trio: Trio) -> None:
    with pytest.raises(ValueError, match="no data set of this program"):
        _ = open_test_set("o", str(trio.world.source)).own_manifest


def test_an_exported_folder_is_scored_like_any(tmp_path: Path) -> None:
    found = open_test_set("o", str(image_folder(tmp_path / "x")))
    assert found.fingerprint == found.source.digest()


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_missing_shard_is_found_however_it_is_addressed(copied: Path, scheme: str) -> None:
    tar_of(copied, 11).unlink()
    with pytest.raises(UserError, match=r"000011\.tar: the shard is missing"):
        open_test_set("a", f"{scheme}{copied}")


def test_an_address_and_its_url_are_the_same_data_set(trio: Trio) -> None:
    metadata = [open_test_set("a", f"{scheme}{trio.advbn}").metadata() for scheme in ("", "file://")]
    assert [each.pop("data_address") for each in metadata] == [str(trio.advbn), f"file://{trio.advbn}"]
    assert metadata[0] == metadata[1]


def test_a_damaged_manifest_of_ours_is_no_other_source(copied: Path) -> None:
    path = copied / "manifest.json"
    path.write_text(path.read_text().replace('"samples": 48,', '"samples": 49,', 1))
    with pytest.raises(UserError, match="is damaged"):
        open_test_set("a", str(copied))


def test_a_newer_data_set_is_refused(copied: Path) -> None:
    forge_json(copied / "manifest.json", format_version=99)
    with pytest.raises(UserError, match="newer advbn-gen"):
        open_test_set("a", str(copied))


@pytest.mark.slow
def test_a_data_set_of_training_images_is_opened_too(trio: Trio, tmp_path: Path) -> None:
    done = trio.world.make(tmp_path / "out", split="train", limit=8)
    assert done.code == 0, done.err
    assert len(open_test_set("a", str(tmp_path / "out")).records) == 8
