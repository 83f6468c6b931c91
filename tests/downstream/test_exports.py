"""Last and best weights of a fine-tuning, when later epochs are worse."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from attacks.statistics import AdvBNConfig
from downstream.advbn import AdvBNNetwork
from downstream.exports import Exports
from networks.classifiers import load_classifier
from networks.cuts import cut_of
from sources.decode import View
from tests.support import seeded

SCORE = "held_out_top1_main"


@pytest.mark.slow
def test_the_best_weights_stay_when_later_ones_are_worse(tmp_path: Path) -> None:
    with seeded(0):
        start = load_classifier("resnet18", "seed:1", 3)
    network = AdvBNNetwork(start.module[1], cut_of("resnet18"), AdvBNConfig())  # type: ignore[index]
    exports = Exports(tmp_path, start, cut_of("resnet18"), View(crop=32, resize=32))
    bias = network.head.get_parameter("fc.bias")
    kept = {}
    for epoch, score in enumerate((0.5, 0.9, 0.2, 0.9, 0.1), start=1):
        with torch.no_grad():
            bias.fill_(float(epoch))
        exports.write(network, {"epochs_done": epoch, SCORE: score}, SCORE)
        last, best = (load_file(folder / "main.safetensors") for folder in (tmp_path, tmp_path / "best"))
        auxiliary = load_file(tmp_path / "best/auxiliary.safetensors")
        assert float(last["fc.bias"][0]) == epoch
        assert torch.equal(auxiliary["fc.bias"], best["fc.bias"])
        kept[epoch] = float(best["fc.bias"][0])
    # Of equals the latest.
    assert kept == {1: 1, 2: 2, 3: 2, 4: 4, 5: 4}
