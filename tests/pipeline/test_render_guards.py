"""What a rendering must not do: mix two ledgers, take away its own, write what is no image."""

import json
import shutil
from pathlib import Path

import pytest

from pipeline.dataset.ledger import read_ledger, write_ledger
from pipeline.render import rendered_name
from pipeline.renderable import read_renderable
from tests.pipeline.test_render import LEDGER, render, words
from tests.pipeline.world import NAME, SHARDS, World, broken_image, tar_of
from tests.support import advbn_gen, folder_bytes, refused


@pytest.fixture
def ledger(finished: Path, tmp_path: Path) -> Path:
    """The ledger alone, as it is published."""
    return Path(shutil.copy(finished / LEDGER, tmp_path / "published.h5"))


@pytest.fixture
def other(ledger: Path, tmp_path: Path) -> Path:
    """A ledger of the same identity with other multipliers, as a GPU might have found."""
    read = read_ledger(ledger)
    columns = read.columns | {"delta_std": 2 - read.columns["delta_std"]}
    write_ledger(tmp_path / "other-multipliers.h5", columns, read.attributes)
    return tmp_path / "other-multipliers.h5"


@pytest.mark.slow
@pytest.mark.parametrize("scale", ["1", "0.5"])
def test_two_ledgers_are_never_mixed(ledger: Path, other: Path, world: World, tmp_path: Path, scale: str) -> None:
    source = Path(shutil.copytree(world.source, tmp_path / "source"))
    broken = source / read_ledger(ledger).columns["samples/source"][-1].decode()
    whole, out = broken_image(broken), tmp_path / "out"
    assert render(ledger, world, out, "--scale", scale, source=source).code == 1
    broken.write_bytes(whole)
    before = folder_bytes(out)
    for _ in range(2):
        said = refused(*words(other, world, out, "--scale", scale, source=source))
        assert "images of another ledger (shard 0 differs in delta_std)" in said
        assert folder_bytes(out) == before
        assert render(ledger, world, out, "--scale", scale, source=source).code == 0
        before = folder_bytes(out)
    anew = render(other, world, out, "--scale", scale, "--overwrite", source=source)
    # At scale 1 the images are compared with the means in the ledger, which belong to the first multipliers.
    assert (anew.code, "grey levels away" in anew.err) == ((1, True) if scale == "1" else (0, False))
    assert advbn_gen("verify", out).code == 0
    assert json.loads((out / "manifest.json").read_text())["rendered"]["ledger"] == str(other)


@pytest.mark.slow
def test_a_ledger_of_changed_originals_does_not_go_on(ledger: Path, world: World, tmp_path: Path) -> None:
    assert render(ledger, world, tmp_path / "out").code == 0
    read = read_ledger(ledger)
    sums = read.columns["samples/source_sha256"].copy()
    sums[13] ^= 1
    write_ledger(tmp_path / "other.h5", read.columns | {"samples/source_sha256": sums}, read.attributes)
    assert "shard 3 differs in samples/source_sha256" in refused(*words(tmp_path / "other.h5", world, tmp_path / "out"))


@pytest.mark.parametrize("way", ["plain", "a link to the folder", "dots", "a link to the ledger", "a linked ledger"])
def test_overwriting_never_takes_the_ledger_away(copied: Path, world: World, tmp_path: Path, way: str) -> None:
    ledger, out = copied / LEDGER, copied
    if way == "a link to the folder":
        out = tmp_path / "link"
        out.symlink_to(copied)
    elif way == "dots":
        (tmp_path / "x").mkdir()
        out = tmp_path / "x/.." / copied.name
    elif way == "a link to the ledger":
        ledger = tmp_path / "link.h5"
        ledger.symlink_to(copied / LEDGER)
    elif way == "a linked ledger":
        ledger.rename(tmp_path / "elsewhere.h5")
        ledger.symlink_to(tmp_path / "elsewhere.h5")
    before = folder_bytes(copied)
    assert "copy it elsewhere" in refused(*words(ledger, world, out, "--scale", 0.5, "--overwrite"))
    assert folder_bytes(copied) == before


def test_overwriting_never_takes_the_manifest_away(copied: Path, ledger: Path, world: World) -> None:
    before = folder_bytes(copied)
    said = refused(*words(ledger, world, copied, "--overwrite", manifest=copied / "manifest.json"))
    assert "The manifest" in said
    assert "copy it elsewhere" in said
    assert folder_bytes(copied) == before


def test_multipliers_that_make_no_image_fail(ledger: Path, world: World, tmp_path: Path) -> None:
    done = render(ledger, world, tmp_path / "out", "--scale", 1e39)
    assert done.code == 1
    assert "give a smaller --scale" in done.err
    assert not list((tmp_path / "out").glob("*.tar"))


@pytest.mark.parametrize(
    ("scale", "name"),
    [(1.0, NAME), (0.0, f"{NAME}-scale-0"), (2.0, f"{NAME}-scale-2"), (1.0000000001, f"{NAME}-scale-1.0000000001")],
)
def test_a_scale_has_a_name_of_its_own(ledger: Path, scale: float, name: str) -> None:
    assert rendered_name(read_renderable(ledger), scale) == name


@pytest.mark.slow
def test_a_repair_finds_the_ledger_that_moved(ledger: Path, other: Path, world: World, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert render(ledger, world, out, "--scale", 0.5).code == 0
    before = folder_bytes(out)
    moved = ledger.rename(tmp_path / "moved.h5")
    tar_of(out, 3, f"{NAME}-scale-0.5").unlink()
    assert f"The ledger {ledger} is missing" in refused("verify", out, "--repair")
    assert "name that one with --ledger" in refused("verify", out, "--repair", "--ledger", other)
    assert "give --repair as well" in refused("verify", out, "--ledger", moved)
    mended = advbn_gen("verify", out, "--repair", "--ledger", moved)
    assert mended.code == 0, mended.err
    after = folder_bytes(out)
    manifest = json.loads(after.pop("manifest.json"))
    assert manifest["rendered"]["ledger"] == str(moved)
    assert after == {name: content for name, content in before.items() if name != "manifest.json"}
    assert len(list(out.glob("*.tar"))) == SHARDS


def test_a_ledger_is_no_help_to_a_run_of_its_own(copied: Path, ledger: Path) -> None:
    tar_of(copied, 3).unlink()
    assert "was not rendered" in refused("verify", copied, "--repair", "--ledger", ledger)
