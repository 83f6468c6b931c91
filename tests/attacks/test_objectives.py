"""Losses against their formulas, sample by sample."""

import math

import pytest
import torch

from attacks.objectives import SampleLoss, cross_entropy, margin
from basics.errors import UserError

LOGITS = torch.tensor([[2.0, -1.0, 0.5, 1.0], [0.0, 3.0, 3.5, -2.0], [1.0, 1.0, 1.0, 1.0]], dtype=torch.float64)
LABEL = torch.tensor([0, 1, 3])


def close(found: torch.Tensor, expected: list[float]) -> None:
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12)


def test_cross_entropy() -> None:
    rows, label = LOGITS.tolist(), LABEL.tolist()
    close(
        cross_entropy(LOGITS, LABEL),
        [math.log(sum(map(math.exp, row))) - row[own] for row, own in zip(rows, label, strict=True)],
    )


@pytest.mark.parametrize("confidence", [30.0, 60.0, 100.0])
def test_cross_entropy_of_confident_predictions_still_ranks_them(confidence: float) -> None:
    """In single precision, where -log softmax is 0 and has no gradient."""
    logits = torch.tensor([[confidence, 0.0, -3.0], [confidence - 1, 0.0, -3.0]]).requires_grad_()
    loss = cross_entropy(logits, torch.tensor([0, 0]))
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    expected = [math.log1p(math.exp(-margin) * (1 + math.exp(-3))) for margin in (confidence, confidence - 1)]
    assert loss.tolist() == pytest.approx(expected, rel=1e-4)
    assert loss[1] > loss[0] > 0
    assert (gradient[:, 0] < 0).all()


def test_cross_entropy_of_a_confident_error_is_its_margin() -> None:
    loss = cross_entropy(torch.tensor([[-200.0, 0.0]], dtype=torch.float64), torch.tensor([0]))
    assert loss.item() == pytest.approx(200, rel=1e-12)


def test_margin_is_the_largest_other_logit_minus_the_true_one() -> None:
    close(margin(LOGITS, LABEL), [1.0 - 2.0, 3.5 - 3.0, 0.0])


@pytest.mark.parametrize("objective", [cross_entropy, margin])
def test_each_loss_grows_as_the_prediction_turns_wrong(objective: SampleLoss) -> None:
    leaf = LOGITS.clone().requires_grad_()
    loss = objective(leaf, LABEL)
    (gradient,) = torch.autograd.grad(loss.sum(), leaf)
    assert loss.shape == (3,)
    assert torch.isfinite(gradient).all()
    assert (gradient.gather(1, LABEL[:, None]) < 0).all()


def test_one_class_is_refused() -> None:
    with pytest.raises(UserError, match="no wrong prediction"):
        margin(LOGITS[:, :1], torch.tensor([0, 0, 0]))
