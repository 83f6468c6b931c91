"""Checks of options that several commands and requests share."""

from collections.abc import Iterable

from basics.errors import UserError


def refuse_unused_options(unused: Iterable[str], settings: str) -> None:
    """Refuse options that were given but have no effect; the message names the first of them.

    Args:
        unused: names of such options, without the hyphens in front; underscores stand for hyphens.
        settings: the settings with which they have none, e.g. `with --defence none`.

    Raises:
        UserError: there is such an option.
    """
    for name in unused:
        raise UserError(f"The option --{name.replace('_', '-')} changes nothing {settings}; leave it out.")


def require_loaders(loaders: int | None) -> None:
    """Refuse a number of loader processes that cannot be; None stands for as many as fit the machine.

    Raises:
        UserError: it is negative.
    """
    if loaders is not None and loaders < 0:
        raise UserError(f"The number of loaders is {loaders}; give 0 or more.")
