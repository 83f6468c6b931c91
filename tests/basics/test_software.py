"""Versions of installed packages."""

from importlib.metadata import PackageNotFoundError

import pytest
import torch

from basics.software import versions_of


def test_versions_are_in_the_order_of_the_names() -> None:
    versions = versions_of(["torch", "advbn-gen"])
    assert list(versions) == ["torch", "advbn-gen"]
    assert versions["torch"].split("+")[0] == torch.__version__.split("+")[0]
    with pytest.raises(PackageNotFoundError):
        versions_of(["no-such-package-of-anyone"])
