"""A check of options that several commands and requests share."""

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
