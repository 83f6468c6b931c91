"""Encoders by their names: those of the registry, and any network's front."""

from pathlib import Path

from basics.errors import UserError
from encoders.fronts import SEPARATOR, front_kind
from encoders.registry import ENCODERS, EncoderKind
from networks.specs import name_in_file, split_spec


def encoder_kind(name: str) -> EncoderKind:
    """Return the encoder called `name`.

    Args:
        name: name in the registry, or `NETWORK@MODULE` (see `encoders.fronts`).

    Raises:
        UserError: there is no encoder of that name.
    """
    if SEPARATOR in name:
        return front_kind(name)
    if name not in ENCODERS:
        known = ", ".join(sorted(ENCODERS))
        raise UserError(f"There is no encoder {name!r}; give one of {known}, or SPEC@MODULE for a network's front.")
    return ENCODERS[name]


def split_encoder(text: str) -> tuple[str, str | None]:
    """Return an encoder's name, and the weights that its SPEC says.

    Args:
        text: name in the registry, whose weights are None, or `SPEC@MODULE`.

    Raises:
        UserError: the SPEC or the module is missing, or the SPEC does not say which network it is.
    """
    spec, separator, module = text.rpartition(SEPARATOR)
    if not separator:
        return text, None
    if not (spec and module):
        raise UserError(f"The encoder {text!r} lacks its network or its module; give SPEC@MODULE.")
    network, weights = split_spec(spec)
    return f"{network or name_in_file(Path(weights), whole=True)}{SEPARATOR}{module}", weights


def file_name_of(encoder: str) -> str:
    """Return what data sets and folders of an encoder are called: its name, in characters that every path may have."""
    return encoder.rpartition(":")[2].replace(SEPARATOR, "-").replace(".", "_")
