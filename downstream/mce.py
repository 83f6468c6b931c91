"""ImageNet-C's arithmetic: corruption errors, their mean (mCE), and the mean error that is not normalised.

Hendrycks and Dietterich's definition (github.com/hendrycks/robustness), as in the paper's appendix A.1. mCE is in per
cent of AlexNet's errors, the mean error a share of answers; mixing the two up is the best-known mistake with this set.
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
"""(corruption, severity) -> share of wrong first answers, 0 to 1."""


@dataclass(frozen=True, kw_only=True)
class CorruptionSummary:
    """What the errors on ImageNet-C come to; means of the whole are None where a subset is missing."""

    ce: dict[str, float | None]
    """Corruption error of each corruption in per cent of AlexNet's; None without all five severities."""
    mce: float | None
    """Mean of the 15 corruption errors."""
    mean_error: float | None
    """Mean of the 75 errors themselves, 0 to 1."""
    missing: list[tuple[str, int]]
    """Subsets that are not there."""
    mean_ce_there: float | None
    """Mean of the corruption errors that are there; None if there is none."""
    mean_error_there: float
    """Mean of the errors that are there."""


def mean(values: Sequence[float]) -> float:
    """Return the plain mean of at least one value."""
    return fsum(values) / len(values)


def corruption_error(corruption: str, error_S: Sequence[float]) -> float:
    """Return a corruption error: the mean error over the severities by AlexNet's, in per cent.

    Args:
        corruption: which one.
        error_S: error (0 to 1) at each of the five severities.

    Raises:
        ValueError: there are not five.
    """
    if len(error_S) != len(SEVERITIES):
        raise ValueError(f"{len(error_S)} errors for the {len(SEVERITIES)} severities of {corruption}")
    return 100 * mean(error_S) / ALEXNET_ERRORS[corruption]


def summarise(errors: Errors) -> CorruptionSummary:
    """Return everything that ImageNet-C's tables tell, of all 75 subsets or of some.

    Args:
        errors: of at least one subset.
    """
    missing = [(name, level) for name in CORRUPTIONS for level in SEVERITIES if (name, level) not in errors]
    broken = {name for name, _ in missing}
    ce = {
        name: None if name in broken else corruption_error(name, [errors[name, level] for level in SEVERITIES])
        for name in CORRUPTIONS
    }
    there = [value for value in ce.values() if value is not None]
    mean_ce, mean_error = mean(there) if there else None, mean(list(errors.values()))
    return CorruptionSummary(
        ce=ce,
        mce=None if missing else mean_ce,
        mean_error=None if missing else mean_error,
        missing=missing,
        mean_ce_there=mean_ce,
        mean_error_there=mean_error,
    )
