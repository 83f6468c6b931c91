"""Settings that no training run can have."""

import pytest

from basics.errors import UserError
from training.config import TrainingConfig

GOOD = {"epochs": 1, "batch_size": 4, "lr": 0.1, "image_size": 16}


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"batch_size": -1}, "batch size is -1"),
        ({"image_size": 0}, "image size is 0"),
        ({"checkpoint_every": 0}, "checkpoint every is 0"),
        ({"devices": 0}, "devices is 0"),
        ({"lr": 0.0}, "learning rate is 0"),
        ({"lr": -1.0}, "learning rate is -1"),
        ({"lr": float("inf")}, "learning rate is inf"),
        ({"lr": float("nan")}, "learning rate is nan"),
        ({"schedule": "linear"}, "no schedule 'linear'"),
        ({"devices": 3}, "4 does not divide among 3"),
    ],
)
def test_impossible_settings_are_refused(changed: dict[str, object], named: str) -> None:
    with pytest.raises(UserError, match=named):
        TrainingConfig(**{**GOOD, **changed})  # type: ignore[arg-type]


def test_good_settings_are_kept() -> None:
    config = TrainingConfig(**GOOD, devices=2)  # type: ignore[arg-type]
    assert (config.epochs, config.batch_size, config.devices, config.schedule) == (1, 4, 2, "constant")
