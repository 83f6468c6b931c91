"""Errors keep their words on the way from a loader process."""

import pytest
from torch.utils.data import DataLoader, Dataset

from basics.errors import WorkError


class SpecialError(WorkError):
    pass


class Broken(Dataset[int]):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> int:
        raise SpecialError("The image x: y.png is broken.")


@pytest.mark.parametrize("loaders", [0, 1])
def test_a_sentence_stays_a_sentence(loaders: int) -> None:
    with pytest.raises(SpecialError) as caught:
        list(DataLoader(Broken(), num_workers=loaders))
    assert str(caught.value) == "The image x: y.png is broken."


def test_other_messages_are_left_alone() -> None:
    assert str(WorkError("Caught a cold.")) == "Caught a cold."
