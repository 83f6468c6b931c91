"""95% intervals of accuracies and of gaps between accuracies on the same samples."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

CONFIDENCE = 0.95
RESAMPLES = 10_000
"""Draws of the bootstrap."""

Correct = NDArray[np.bool_]
"""Whether the prediction for each sample is correct, (N,)."""


@dataclass(frozen=True)
class Estimate:
    """A value with its 95% interval."""

    value: float
    """The value itself: a share, or a difference of shares."""
    low: float
    """Lower end of the interval."""
    high: float
    """Upper end of the interval."""


def accuracy(correct_N: Correct) -> Estimate:
    """Return the share of correct predictions with its interval (see `proportion`).

    Args:
        correct_N: whether each prediction is correct, (N,) with N at least 1.
    """
    return proportion(int(correct_N.sum()), len(correct_N))


def proportion(count: int, total: int) -> Estimate:
    """Return a share with its Wilson score interval, which also holds near 0 and 1.

    Args:
        count: how many samples have a property.
        total: of how many samples; at least one.
    """
    interval = binomtest(count, total).proportion_ci(CONFIDENCE, method="wilson")
    return Estimate(count / total, float(interval.low), float(interval.high))


def gap(before_N: Correct, after_N: Correct, seed: int = 0) -> Estimate:
    """Return how much accuracy falls from `before` to `after`, with its paired bootstrap interval.

    Samples are drawn again with replacement, each with its predictions in both data sets. Only the numbers of samples
    lost and won count, so drawing these numbers from their multinomial distribution is the same as drawing samples.

    Args:
        before_N: whether each prediction is correct in the first data set.
        after_N: whether the prediction for the same sample is correct in the second.
        seed: seed of the drawing.
    """
    total = len(before_N)
    lost, won = int((before_N & ~after_N).sum()), int((~before_N & after_N).sum())
    shares = np.array([lost, won, total - lost - won]) / total
    drawn = np.random.default_rng(seed).multinomial(total, shares, RESAMPLES)
    margin = (1 - CONFIDENCE) / 2
    low, high = np.quantile((drawn[:, 0] - drawn[:, 1]) / total, [margin, 1 - margin])
    return Estimate((lost - won) / total, float(low), float(high))
