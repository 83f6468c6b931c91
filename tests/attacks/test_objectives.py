"""Losses against loops over samples."""

import math

import pytest
import torch

from attacks.objectives import cross_entropy, margin

LOGITS = torch.tensor([[2.0, 1.0, -1.0], [0.5, 3.0, 3.5], [1.0, 1.0, 0.0]], dtype=torch.float64)
LABEL = torch.tensor([0, 1, 1])


def test_cross_entropy_is_minus_the_log_of_the_softmax() -> None:
    expected = [
        math.log(sum(math.exp(value) for value in row)) - row[label]
        for row, label in zip(LOGITS.tolist(), LABEL.tolist(), strict=True)
    ]
    assert cross_entropy(LOGITS, LABEL).tolist() == pytest.approx(expected)


def test_margin_is_the_lead_of_the_best_wrong_class() -> None:
    assert margin(LOGITS, LABEL).tolist() == [-1.0, 0.5, 0.0]
