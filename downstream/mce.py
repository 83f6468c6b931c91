"""ImageNet-C's arithmetic: corruption errors, their mean (mCE), and the mean error that is not normalised.

Hendrycks and Dietterich's definition (github.com/hendrycks/robustness), as in the paper's appendix A.1. mCE is in per
cent of AlexNet's errors, the mean error a share of predictions; confusing the two is a common mistake with this set.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import fsum

CATEGORIES = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
    "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    "weather": ("snow", "frost", "fog", "brightness"),
    "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
}
CORRUPTIONS = tuple(name for names in CATEGORIES.values() for name in names)
"""The 15 corruptions, in the order of the paper's Table 4."""
SEVERITIES = (1, 2, 3, 4, 5)

ALEXNET_ERRORS = {
    "gaussian_noise": 0.886428,
    "shot_noise": 0.894468,
    "impulse_noise": 0.922640,
    "defocus_blur": 0.819880,
    "glass_blur": 0.826268,
    "motion_blur": 0.785948,
    "zoom_blur": 0.798360,
    "snow": 0.866816,
    "frost": 0.826572,
    "fog": 0.819324,
    "brightness": 0.564592,
    "contrast": 0.853204,
    "elastic_transform": 0.646056,
    "pixelate": 0.717840,
    "jpeg_compression": 0.606500,
}
"""AlexNet's mean error over the five severities of each corruption: the unit of a corruption error."""

Errors = Mapping[tuple[str, int], float]
"""(corruption, severity) -> top-1 error, 0 to 1."""


@dataclass(frozen=True, kw_only=True)
class CorruptionSummary:
    """Means over the errors on ImageNet-C; those over the complete set are None if a subset is missing."""

    ce: dict[str, float | None]
    """Corruption error of each corruption in per cent of AlexNet's; None without all five severities."""
    mce: float | None
    """Mean of the 15 corruption errors."""
    mean_error: float | None
    """Mean of the 75 errors themselves, 0 to 1."""
    missing: list[tuple[str, int]]
    """(corruption, severity) of the subsets without an error."""
    partial_mean_ce: float | None
    """Mean of the corruption errors that exist; None if there is none."""
    partial_mean_error: float
    """Mean of the errors that exist."""


def mean(values: Sequence[float]) -> float:
    """Return the plain mean of at least one value."""
    return fsum(values) / len(values)


def corruption_error(corruption: str, error_S: Sequence[float]) -> float:
    """Return a corruption error: the mean error over the severities by AlexNet's, in per cent.

    Args:
        corruption: name of the corruption.
        error_S: error (0 to 1) at each of the five severities.

    Raises:
        ValueError: the number of errors is not five.
    """
    if len(error_S) != len(SEVERITIES):
        raise ValueError(f"{len(error_S)} errors for the {len(SEVERITIES)} severities of {corruption}")
    return 100 * mean(error_S) / ALEXNET_ERRORS[corruption]


def summarise(errors: Errors) -> CorruptionSummary:
    """Return corruption errors and means for all 75 subsets of ImageNet-C or for some.

    Args:
        errors: errors of at least one subset.
    """
    missing = [(name, level) for name in CORRUPTIONS for level in SEVERITIES if (name, level) not in errors]
    broken = {name for name, _ in missing}
    ce = {
        name: None if name in broken else corruption_error(name, [errors[name, level] for level in SEVERITIES])
        for name in CORRUPTIONS
    }
    known = [value for value in ce.values() if value is not None]
    mean_ce, mean_error = mean(known) if known else None, mean(list(errors.values()))
    return CorruptionSummary(
        ce=ce,
        mce=None if missing else mean_ce,
        mean_error=None if missing else mean_error,
        missing=missing,
        partial_mean_ce=mean_ce,
        partial_mean_error=mean_error,
    )
