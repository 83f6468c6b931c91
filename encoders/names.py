"""Encoders by their names: those of the registry, of installed packages, and any network's front."""

from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from basics.errors import UserError
from encoders.fronts import SEPARATOR, front_kind
from encoders.registry import ENCODERS, EncoderKind
from networks.specs import first_line, name_in_file, split_spec

ENTRY_POINTS = "advbn_gen.encoders"
"""Group of entry points in which an installed package names its encoders, each with the module that registers it.

So every process of a run knows them, also on other machines (docs/extending.md). A module is imported when its encoder
is first wanted: it may itself import this program.
"""


def encoder_kind(name: str) -> EncoderKind:
    """Return the encoder called `name`.

    Args:
        name: name in the registry or of an installed package, or `NETWORK@MODULE` (see `encoders.fronts`).

    Raises:
        UserError: there is no encoder of that name, or its package cannot be used.
    """
    if SEPARATOR in name:
        return front_kind(name)
    if name not in ENCODERS:
        _register_installed(name)
    return ENCODERS[name]


def _register_installed(name: str) -> None:
    """Import the modules with which installed packages register an encoder.

    Raises:
        UserError: there is none of that name, or one cannot be imported or does not register it.
    """
    installed = entry_points(group=ENTRY_POINTS)
    if name not in installed.names:
        known = ", ".join(sorted({*ENCODERS, *installed.names}))
        raise UserError(f"There is no encoder {name!r}; give one of {known}, or SPEC@MODULE for a network's front.")
    for entry in installed.select(name=name):
        _import(entry)
    if name not in ENCODERS:
        modules = ", ".join(entry.value for entry in installed.select(name=name))
        raise UserError(
            f"An installed package says that {modules} has the encoder {name}, which it does not register; give that "
            "name to its EncoderKind, or to the entry point the encoder's name."
        )


def _import(entry: EntryPoint) -> None:
    try:
        entry.load()
    except MemoryError:
        raise
    except Exception as error:
        # Code of others may raise anything.
        raise UserError(
            f"The encoder {entry.name} of an installed package cannot be used: {entry.value} raises "
            f"{type(error).__name__} ({first_line(error)}); mend the package, or uninstall it."
        ) from error


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
