"""Versions: of what data sets record of this program, and of installed packages, for the metadata of results."""

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version

FORMAT_VERSION = 2
"""Version of the data-set format; 2 added each sample's losses and pixel mean to the ledger."""
REVISION = 2
"""This program's way to compute a batch. Revision 2 computes convolutions behind an upsampling in the layout of the
other ones, which rounds differently. Data sets that were begun with 1, which identities do not name, are gone on with
and rendered as they were begun."""


def versions_of(names: Iterable[str]) -> dict[str, str]:
    """Return the version of each package, in the order given.

    Raises:
        importlib.metadata.PackageNotFoundError: a package is not installed.
    """
    return {name: version(name) for name in names}


def installed_versions(names: Iterable[str]) -> dict[str, str | None]:
    """Return the version of each package, in the order given; None of one that is not installed."""
    return {name: _version_or_none(name) for name in names}


def _version_or_none(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
