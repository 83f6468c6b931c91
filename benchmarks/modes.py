"""Arithmetic that is compared: a precision, compiled or not, the batch passed as a whole or by parts."""

from dataclasses import dataclass, replace
from typing import Self, get_args

from basics.compute import Precision, choose_compute
from basics.errors import UserError
from pipeline.config import GenerationConfig

_COMPILED, _MICRO = "compiled", "micro"


@dataclass(frozen=True, kw_only=True)
class Mode:
    """One way to compute the ascent."""

    precision: str
    """Precision of the arithmetic, see `basics.compute`."""
    compiled: bool = False
    """Whether the networks are compiled."""
    micro_batch: int | None = None
    """Images in one pass; None passes a batch as a whole."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the mode of a name such as `bf16`, `bf16-compiled` or `bf16-micro8`.

        Raises:
            UserError: it is no such name.
        """
        precision, *options = text.strip().split("-")
        sizes = [option.removeprefix(_MICRO) for option in options if option.startswith(_MICRO)]
        unknown = [option for option in options if option != _COMPILED and not option.startswith(_MICRO)]
        if precision not in get_args(Precision) or unknown or len(sizes) > 1 or not all(map(str.isdecimal, sizes)):
            raise UserError(f"There is no mode {text!r}; give names such as bf16, bf16-compiled or bf16-micro8.")
        return cls(precision=precision, compiled=_COMPILED in options, micro_batch=int(sizes[0]) if sizes else None)

    @property
    def name(self) -> str:
        """Its name, as `parse` takes it."""
        micro = "" if self.micro_batch is None else f"-{_MICRO}{self.micro_batch}"
        return f"{self.precision}{f'-{_COMPILED}' if self.compiled else ''}{micro}"

    def applied(self, config: GenerationConfig) -> GenerationConfig:
        """Return the settings of a run in this mode."""
        return replace(config, precision=self.precision, micro_batch=self.micro_batch, compiled=self.compiled)


def modes_of(names: str) -> tuple[Mode, ...]:
    """Return the modes of names that are separated by commas.

    Raises:
        UserError: a name is not one of a mode.
    """
    return tuple(Mode.parse(name) for name in names.split(","))


def precisions_of(device: str) -> tuple[str, ...]:
    """Return the precisions that a device has, other than fp64."""
    return tuple(name for name in get_args(Precision) if name != "fp64" and _has(device, name))


def _has(device: str, precision: str) -> bool:
    try:
        choose_compute(device, precision)
    except UserError:
        return False
    return True
