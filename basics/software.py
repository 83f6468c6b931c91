"""Versions of installed packages, for the metadata of results."""

from collections.abc import Iterable
from importlib.metadata import version


def versions_of(names: Iterable[str]) -> dict[str, str]:
    """Return the version of each package, in the order given.

    Raises:
        importlib.metadata.PackageNotFoundError: a package is not installed.
    """
    return {name: version(name) for name in names}
