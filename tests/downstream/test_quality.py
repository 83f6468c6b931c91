"""PSNR and SSIM against their formulas, written out."""

import math

import numpy as np
import pytest
import torch

from basics.compute import choose_compute
from basics.errors import UserError
from downstream.quality import HIGHEST_PSNR, quality
from downstream.testset import open_test_set
from sources.decode import load_image
from tests.trio import Trio

COMPUTE = choose_compute("cpu", "fp32")


def pixels(data: object, position: int) -> np.ndarray:
    record = data.records[position]  # type: ignore[attr-defined]
    content = data.source.read(record)  # type: ignore[attr-defined]
    return load_image(content, record.name, 32).double().numpy() / 255


def naive_ssim(before: np.ndarray, after: np.ndarray) -> float:
    """Wang et al. 2004: 11x11 Gaussian windows of sigma 1.5, K 0.01 and 0.03, the border mirrored."""
    line = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    window = np.outer(line, line) / line.sum() ** 2
    found = []
    for plane_a, plane_b in zip(before, after, strict=True):
        wide_a, wide_b = (np.pad(plane, 5, mode="reflect") for plane in (plane_a, plane_b))
        for y in range(plane_a.shape[0]):
            for x in range(plane_a.shape[1]):
                a, b = wide_a[y : y + 11, x : x + 11], wide_b[y : y + 11, x : x + 11]
                mean_a, mean_b = (window * a).sum(), (window * b).sum()
                var_a, var_b = (window * a * a).sum() - mean_a**2, (window * b * b).sum() - mean_b**2
                both = (window * a * b).sum() - mean_a * mean_b
                found.append(
                    (2 * mean_a * mean_b + 1e-4) * (2 * both + 9e-4)
                    / ((mean_a**2 + mean_b**2 + 1e-4) * (var_a + var_b + 9e-4))
                )  # fmt: skip
    return float(np.mean(found))


@pytest.mark.slow
def test_measures_equal_their_formulas(trio: Trio) -> None:
    made = open_test_set("reconstructed", str(trio.reconstructed))
    original = open_test_set("original", str(trio.world.source)).in_order(made.keys)
    found = quality(original, made, COMPUTE)
    assert {name: len(values) for name, values in found.items()} == {"psnr": 48, "ssim": 48}
    for position in (0, 17, 47):
        before, after = pixels(original, position), pixels(made, position)
        assert found["psnr"][position] == pytest.approx(-10 * math.log10(((before - after) ** 2).mean()), rel=1e-5)
        assert found["ssim"][position] == pytest.approx(naive_ssim(before, after), abs=2e-4)


def test_equal_images_have_the_highest_psnr(trio: Trio) -> None:
    made = open_test_set("reconstructed", str(trio.reconstructed))
    found = quality(made, made, COMPUTE)
    assert set(found["psnr"]) == {HIGHEST_PSNR}
    assert found["ssim"] == pytest.approx(np.ones(48))


@pytest.mark.slow
def test_lpips_without_network_is_said(trio: Trio, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", offline)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    made = open_test_set("reconstructed", str(trio.reconstructed))
    with pytest.raises(UserError, match="leave out --lpips"):
        quality(made, made, COMPUTE, lpips=True)
