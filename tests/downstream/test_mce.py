"""ImageNet-C's arithmetic against the paper's own tables and against plain loops."""

import re
from pathlib import Path

import pytest

from downstream.mce import ALEXNET_ERRORS, CATEGORIES, CORRUPTIONS, SEVERITIES, corruption_error, summarise
from reports.published_tables_4_to_7 import table_4_methods, table_4_row, table_5_errors

WHOLE = {(name, level): 0.01 * level + 0.02 * index for index, name in enumerate(CORRUPTIONS) for level in SEVERITIES}


def better_at(corruption: str, by: float) -> dict[tuple[str, int], float]:
    return {key: value - by if key[0] == corruption else value for key, value in WHOLE.items()}


@pytest.mark.parametrize("method", table_4_methods())
def test_the_published_mce_is_the_mean_of_the_published_errors(method: str) -> None:
    row = table_4_row(method)
    assert row is not None
    assert sum(row.ce.values()) / 15 == pytest.approx(row.mce, abs=0.5)  # each of the 15 is rounded to a whole number


@pytest.mark.parametrize(("method", "mce", "mean_error"), [("AugMix", 65.3, 51.7), ("AugMix + AdvBN", 64.6, 51.0)])
def test_table_5_by_a_plain_loop(method: str, mce: float, mean_error: float, shared_data: Path) -> None:
    """AlexNet's errors are read out of the specification; 65.3 is what AugMix's own authors state for their network."""
    spec = (shared_data.parent / "spec/advbn.md").read_text()
    alexnet = {name: float(value) for name, value in re.findall(r"\b([a-z_]+)\s+(\.\d{6})\b", spec)}
    assert len(alexnet) == 15
    errors = table_5_errors(method)
    assert errors is not None
    total, plain = 0.0, 0.0
    for corruption, unit in alexnet.items():
        of_corruption = 0.0
        for severity in (1, 2, 3, 4, 5):
            of_corruption += errors[corruption, severity] / 100
            plain += errors[corruption, severity]
        total += of_corruption / 5 / unit * 100
    found = summarise({key: value / 100 for key, value in errors.items()})
    assert found.mce == pytest.approx(total / 15, rel=1e-12)
    assert found.mean_error == pytest.approx(plain / 75 / 100, rel=1e-12)
    assert round(total / 15, 1) == mce
    assert round(plain / 75, 1) == mean_error
    assert alexnet == ALEXNET_ERRORS


def test_alexnets_own_errors_are_100() -> None:
    alexnet = {(name, level): ALEXNET_ERRORS[name] for name in CORRUPTIONS for level in SEVERITIES}
    found = summarise(alexnet)
    assert found.mce == pytest.approx(100)
    assert set(map(round, filter(None, found.ce.values()))) == {100}
    assert found.mean_error == pytest.approx(sum(ALEXNET_ERRORS.values()) / 15)


def test_the_two_means_are_different_things() -> None:
    """One network is better by mCE, the other by the plain mean: brightness weighs more in mCE, noise less."""
    good_in_light = {**WHOLE, **{("brightness", level): WHOLE["brightness", level] - 0.2 for level in SEVERITIES}}
    good_in_noise = {
        **WHOLE,
        **{("impulse_noise", level): WHOLE["impulse_noise", level] - 0.21 for level in SEVERITIES},
    }
    light, noise = summarise(good_in_light), summarise(good_in_noise)
    assert light.mce is not None
    assert noise.mce is not None
    assert light.mean_error is not None
    assert noise.mean_error is not None
    assert light.mce < noise.mce
    assert noise.mean_error < light.mean_error


def test_a_part_does_not_stand_for_the_whole() -> None:
    part = {key: value for key, value in WHOLE.items() if key != ("fog", 3) and key[0] != "snow"}
    found, whole = summarise(part), summarise(WHOLE)
    assert (found.mce, found.mean_error) == (None, None)
    assert found.missing == [*(("snow", level) for level in SEVERITIES), ("fog", 3)]
    assert (found.ce["snow"], found.ce["fog"]) == (None, None)
    there = [value for name, value in whole.ce.items() if name not in {"snow", "fog"} and value is not None]
    assert found.partial_mean_ce == pytest.approx(sum(there) / 13)
    assert found.partial_mean_error == pytest.approx(sum(part.values()) / 69)
    assert (whole.missing, whole.mce) == ([], whole.partial_mean_ce)


def test_without_one_whole_corruption_there_is_no_mean_of_any() -> None:
    found = summarise({("fog", 1): 0.25, ("snow", 2): 0.75})
    assert found.partial_mean_ce is None
    assert found.partial_mean_error == 0.5
    assert set(found.ce.values()) == {None}


def test_five_severities_make_a_corruption_error() -> None:
    with pytest.raises(ValueError, match="4 errors for the 5 severities of fog"):
        corruption_error("fog", [0.1] * 4)


def test_the_names_are_imagenet_cs() -> None:
    assert {name: len(each) for name, each in CATEGORIES.items()} == {"noise": 3, "blur": 4, "weather": 4, "digital": 4}
    assert list(ALEXNET_ERRORS) == list(CORRUPTIONS)
