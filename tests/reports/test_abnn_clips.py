"""Clips under attack on the page: which are shown, their pixels, and that they play, stop and stand still as asked."""

import base64
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from abnn.kept_clips import KeptClip, write_clips
from reports.abnn import abnn_report
from reports.abnn_clips import clip_cards, magnified_frames
from reports.abnn_page import write_abnn_report
from reports.abnn_results import read_abnn_results, read_kept_clips
from tests.browser import Page, browser, require_fits_a_phone, require_self_contained
from tests.reports import attacked_rows
from tests.reports.attacked_rows import ROA, line, table_2
from tests.reports.test_gap_page import contrast
from tests.support import advbn_gen

SIDE, FRAMES = 16, 5
NAMES = ("hop", "skip")


def kept(seed: int, prediction: str = "skip", side: int = SIDE) -> KeptClip:
    """A clip whose frames have their number in the first pixel, attacked by -1, 0 or 1."""
    draw = np.random.default_rng(seed)
    clean = draw.integers(2, 200, (3, FRAMES, side, side), dtype=np.uint8)
    clean[:, :, 0, 0] = 40 * np.arange(FRAMES)
    shift = draw.integers(-1, 2, clean.shape)
    shift[:, :, 0, 0] = 1
    return KeptClip(
        clean_3THW=clean, attacked_3THW=(clean + shift).astype(np.uint8), label="hop", clean_prediction="hop",
        prediction=prediction,
    )  # fmt: skip


def rows() -> list[dict[str, Any]]:
    """Two methods of which one has two models, each under PGD and two rectangles."""
    found = []
    for defence, model in (("none", "plain"), ("abnn", "first"), ("abnn", "second")):
        for row in [*table_2(), {**table_2()[2], "attack": "roa", "settings": {**ROA, "search": "exhaustive"}}]:
            name = "roa-random" if row["settings"].get("search") == "random" else row["attack"]
            own = {"model": model, "defence": defence, "weights_sha256": model.ljust(64, "0"), "attack": name}
            found.append({**row, **own, "pair": f"{model} {name}", "cost": None})
    return found


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("attacked-clips")
    attacked_rows.written(folder / "attacks/results.jsonl", rows())
    for row in rows():
        if row["attack"] != "clean":
            prediction = "hop" if row["model"] == "first" else "skip"
            write_clips(folder / "attacks", row, {position: kept(position, prediction) for position in (2, 10)})
    return folder


@pytest.fixture(scope="module")
def written(results: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("clip-page") / "report"
    done = advbn_gen("report", "abnn", results, "--out", out)
    assert done.code == 0, done.err
    return out


@pytest.fixture(scope="module")
def chromium() -> Iterator[Page]:
    with browser() as page:
        yield page


def cards(results: Path) -> list[dict[str, Any]]:
    found = read_abnn_results([results])
    return clip_cards(abnn_report(found), read_kept_clips([results], found))


def test_a_card_has_the_clip_and_two_attacks_on_each_method(results: Path) -> None:
    found = cards(results)
    assert [(card["task"], card["number"], card["label"]) for card in found] == [
        ("UCF-101", 2, "hop"), ("UCF-101", 10, "hop"),
    ]  # fmt: skip
    for card in found:
        assert [film["title"] for film in card["films"]] == [
            "clean",
            "no defence, pgd-5, perturbation times 15",
            "no defence, roa-random",
            "ABNN, pgd-5, perturbation times 15",
            "ABNN, roa-random",
        ]
        predictions = [[(each["name"], each["correct"]) for each in film["predictions"]] for film in card["films"]]
        assert predictions == [
            [("hop", True), ("hop", True)], [("skip", False)], [("skip", False)], [("hop", True)], [("hop", True)],
        ]  # fmt: skip
        assert [each["model"] for each in card["films"][0]["predictions"]] == ["no defence", "ABNN"]
        assert card["films"][1]["alt"] == ("hop under pgd-5 on no defence, perturbation times 15, predicted as skip")
        assert card["films"][0]["seconds"] == FRAMES / 8


def test_a_film_is_a_strip_of_its_frames(results: Path) -> None:
    for card in cards(results):
        clip = kept(card["number"])
        attacked = clip.clean_3THW.astype(int) + 15 * (clip.attacked_3THW.astype(int) - clip.clean_3THW)
        shown = [clip.clean_3THW, attacked.clip(0, 255), clip.attacked_3THW]
        for film, frames in zip(card["films"], shown, strict=False):
            content = base64.b64decode(film["picture"].removeprefix("data:image/png;base64,"))
            strip = np.asarray(Image.open(io.BytesIO(content)))
            assert strip.shape == (FRAMES * SIDE, SIDE, 3)
            for number in range(FRAMES):
                part = strip[number * SIDE : (number + 1) * SIDE]
                assert np.array_equal(part, frames[:, number].transpose(1, 2, 0))


def test_magnified_perturbations_stay_pixels() -> None:
    clean = np.array([0, 5, 250, 100], np.uint8).reshape(1, 1, 1, 4)
    attacked = np.array([0, 4, 251, 102], np.uint8).reshape(1, 1, 1, 4)
    clip = KeptClip(clean_3THW=clean, attacked_3THW=attacked, label="", clean_prediction="", prediction="")
    assert magnified_frames(clip, 15).ravel().tolist() == [0, 0, 255, 130]
    assert np.array_equal(magnified_frames(clip, 1), attacked)


def test_models_that_see_other_frames_have_their_own_card() -> None:
    lines = [line("pgd-5", 0.5, model=model, task="ucf101", weights_sha256=model.ljust(64), defence=model) for model in
             ("none", "abnn")]  # fmt: skip
    clips = {("pgd-5", "none"): {0: kept(0)}, ("pgd-5", "abnn"): {0: kept(0, side=8)}}
    found = clip_cards(abnn_report(lines), clips)
    assert sorted((card["films"][0]["side"], len(card["films"])) for card in found) == [(8, 2), (16, 2)]


def test_without_clips_the_page_is_as_before(tmp_path: Path) -> None:
    write_abnn_report(tmp_path / "a", table_2())
    page = (tmp_path / "a/report.html").read_text()
    assert "film" not in page
    assert "Clips under attack" not in page


def test_a_long_clip_takes_little_room(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    smooth = np.asarray(
        Image.fromarray(draw.integers(0, 256, (7, 7, 3), dtype=np.uint8)).resize((112, 112), Image.Resampling.BILINEAR)
    )
    clean = np.repeat(smooth.transpose(2, 0, 1)[:, None], 14, axis=1).clip(1, 254)
    attacked = (clean + draw.integers(-1, 2, clean.shape)).astype(np.uint8)
    clip = KeptClip(clean_3THW=clean, attacked_3THW=attacked, label="a", clean_prediction="a", prediction="b")
    lines = [row for row in table_2(frames=40, image_size=112) if row["attack"] == "pgd-5"]
    write_abnn_report(tmp_path, lines, {("pgd-5", "clips"): {0: clip}})
    page = (tmp_path / "report.html").read_text()
    pictures = re.findall(r'data:image/jpeg;base64,([^"]+)', page)
    assert len(pictures) == 2
    assert len(page) < 450_000
    assert "width 1.0, 40 frames of 112 px, " in page
    # The perturbation is still there: JPEGs of the usual quality lose most of it.
    before, shown = (np.asarray(strip, float).reshape(clean.transpose(1, 2, 3, 0).shape) for strip in (
        clean.transpose(1, 2, 3, 0), Image.open(io.BytesIO(base64.b64decode(pictures[1]))),
    ))  # fmt: skip
    moved = magnified_frames(clip, 15).transpose(1, 2, 3, 0) - before
    assert np.corrcoef(moved.ravel(), (shown - before).ravel())[0, 1] > 0.9


@pytest.mark.slow
def test_nothing_is_logged_thrown_or_loaded_from_the_network(chromium: Page, written: Path) -> None:
    require_self_contained(chromium, written / "report.html")


@pytest.mark.slow
def test_it_fits_a_phone(chromium: Page, written: Path) -> None:
    require_fits_a_phone(chromium, written / "report.html")


_STATE = "getComputedStyle(document.querySelector('.film img'))"
_RUNNING = "document.getAnimations().filter(each => each.playState === 'running').length"
_SHOWN = """(() => {
  const film = document.querySelector('.film').getBoundingClientRect();
  const strip = document.querySelector('.film img').getBoundingClientRect();
  return Math.round((film.top - strip.top) / film.height);
})()"""


def at(chromium: Page, frame: float) -> int:
    """Which frame is seen when so many frames have passed."""
    chromium.evaluate(
        f"document.getAnimations().forEach(each => {{ each.pause(); each.currentTime = {frame} * 1000 / 8; }})"
    )
    shown: int = chromium.evaluate(_SHOWN)
    return shown


@pytest.mark.slow
@pytest.mark.parametrize("script", [True, False])
def test_films_play_every_frame_and_stop_on_request(chromium: Page, written: Path, script: bool) -> None:
    chromium.look(1280, script=script)
    chromium.open(written / "report.html")
    chromium.look(1280)
    assert chromium.evaluate("document.querySelectorAll('.film img').length") == 10
    assert chromium.evaluate(_RUNNING) == 10
    chromium.evaluate("document.querySelector('label[for=pause]').click()")
    assert chromium.evaluate(_RUNNING) == 0
    assert chromium.evaluate(f"{_STATE}.animationPlayState") == "paused"
    chromium.evaluate("document.querySelector('#pause').click()")
    assert chromium.evaluate(_RUNNING) == 10
    assert [at(chromium, frame + 0.5) for frame in range(FRAMES + 1)] == [*range(FRAMES), 0]
    assert chromium.evaluate("document.querySelector('.film').clientHeight") == chromium.evaluate(
        "document.querySelector('.film').clientWidth"
    )


@pytest.mark.slow
def test_films_stand_still_where_little_motion_is_asked_for(chromium: Page, written: Path) -> None:
    chromium.look(1280)
    chromium.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-reduced-motion", "value": "reduce"}])
    chromium.open(written / "report.html")
    assert chromium.evaluate("document.getAnimations().length") == 0
    assert chromium.evaluate(_SHOWN) == 0
    shown = [
        chromium.evaluate(f"document.querySelector('{name}').offsetParent !== null") for name in ("#pause", "#play")
    ]
    assert shown == [False, True]
    chromium.evaluate("document.querySelector('#play').click()")
    assert chromium.evaluate(_RUNNING) == 10
    chromium.look(1280)


@pytest.mark.slow
def test_every_film_says_what_it_shows(chromium: Page, written: Path) -> None:
    chromium.look(1280)
    chromium.open(written / "report.html")
    texts = chromium.evaluate("[...document.querySelectorAll('.film img')].map(each => each.alt)")
    assert len(set(texts)) == 5
    assert all(text.startswith("hop") for text in texts)
    captions = chromium.evaluate("[...document.querySelectorAll('.films figcaption')].map(each => each.textContent)")
    assert captions[1] == "no defence, pgd-5, perturbation times 15✗ skip"
    assert captions[0] == "clean✓ hop (no defence)✓ hop (ABNN)"


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True])
def test_captions_can_be_read_in_light_and_in_dark(chromium: Page, written: Path, dark: bool) -> None:
    chromium.look(1280, dark=dark)
    chromium.open(written / "report.html")
    for selector in (".films figcaption", ".films .correct", ".films .wrong", ".clip h3 .small", "label"):
        assert contrast(chromium, selector) >= 4.5, selector


@pytest.mark.slow
def test_names_of_classes_that_look_like_markup_stay_names(tmp_path: Path, chromium: Page) -> None:
    name = '"><script>throw 1</script>'
    clip = kept(0)
    odd = KeptClip(
        clean_3THW=clip.clean_3THW, attacked_3THW=clip.attacked_3THW, label=name, clean_prediction=name, prediction=name
    )
    write_abnn_report(tmp_path, [row for row in table_2() if row["attack"] == "roa"], {("roa", "clips"): {0: odd}})
    chromium.look(1280)
    chromium.open(tmp_path / "report.html")
    assert chromium.complaints() == []
    assert not re.findall("<script", (tmp_path / "report.html").read_text())
    assert name in chromium.evaluate("document.querySelector('.film img').alt")
