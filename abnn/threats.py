"""The attacks of the tables by name: what each is set to, and how it turns images."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from torch import Tensor, nn

from abnn.adaptive import driving
from abnn.benchmarks import Benchmark
from abnn.checkpoint import Checkpoint
from attacks.autoattack import AutoAttackConfig, auto_attack, require_autoattack, require_classes
from attacks.objectives import cross_entropy, margin
from attacks.pixels import PixelConfig, attack_pixels
from attacks.rectangles import RectangleConfig, Search, attack_rectangles
from attacks.restarts import Attempt, strongest
from basics.compute import Compute
from basics.errors import UserError
from basics.progress import say

STRONG_STEPS = 50
STRONG_RESTARTS = 5
ADAPTIVE_WEIGHTS = (0.0, 1.0, 10.0, 100.0)
"""Of the drift beside the margin, one restart each."""


class Threat(Protocol):
    """One attack, ready to be carried out."""

    @property
    def name(self) -> str:
        """What tables call it."""
        ...

    def settings(self) -> dict[str, Any]:
        """Return what tells it from others, as JSON values."""
        ...

    def __call__(self, network: nn.Module, image_N3HW: Tensor, label_N: Tensor, seed: int) -> Tensor:
        """Return attacked images for a frozen network in evaluation mode.

        What is random comes from torch's global generator, or from `seed` where a library draws it.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Clean:
    """No attack."""

    name: str = "clean"

    def settings(self) -> dict[str, Any]:
        """Nothing can be set."""
        return {}

    def __call__(self, network: nn.Module, image_N3HW: Tensor, label_N: Tensor, seed: int) -> Tensor:  # noqa: ARG002
        """Return the images."""
        return image_N3HW


@dataclass(frozen=True, kw_only=True)
class Pgd:
    """PGD on the whole network, from one or more random starts (Madry et al. 2018)."""

    config: PixelConfig
    restarts: int = 1

    @property
    def name(self) -> str:
        """`pgd-5`, `pgd-50x5`."""
        return f"pgd-{self.config.steps}" + (f"x{self.restarts}" if self.restarts > 1 else "")

    def settings(self) -> dict[str, Any]:
        """Return ball, steps and restarts."""
        return {**asdict(self.config), "restarts": self.restarts}

    def __call__(self, network: nn.Module, image_N3HW: Tensor, label_N: Tensor, seed: int) -> Tensor:  # noqa: ARG002
        """Return the strongest of the restarts."""
        attempt = _pgd(network, self.config)
        if self.restarts == 1:
            # As published: every image is attacked, also one that is answered wrongly.
            return attempt(image_N3HW, label_N)
        return strongest([attempt] * self.restarts, network, image_N3HW, label_N).image_N3HW


@dataclass(frozen=True, kw_only=True)
class Adaptive:
    """PGD that also drives what the substitute says (see `abnn.adaptive`), one restart a weight."""

    config: PixelConfig
    weights: tuple[float, ...] = ADAPTIVE_WEIGHTS
    name: str = "adaptive"

    def settings(self) -> dict[str, Any]:
        """Return ball, steps and weights."""
        return {**asdict(self.config), "weights": list(self.weights)}

    def __call__(self, network: nn.Module, image_N3HW: Tensor, label_N: Tensor, seed: int) -> Tensor:  # noqa: ARG002
        """Return the strongest of the restarts."""
        attempts = [driving(network, self.config, weight) for weight in self.weights]
        return strongest(attempts, network, image_N3HW, label_N, margin).image_N3HW


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """PGD on another network of the same classes: what an attacker can do who does not know the attacked one."""

    config: PixelConfig
    twin: Checkpoint
    name: str = "transfer"

    def settings(self) -> dict[str, Any]:
        """Return ball, steps and whose gradients are used."""
        return {**asdict(self.config), "twin": self.twin.name, "twin_sha256": self.twin.checksum}

    def __call__(self, network: nn.Module, image_N3HW: Tensor, label_N: Tensor, seed: int) -> Tensor:  # noqa: ARG002
        """Return images turned against the twin."""
        twin = self.twin.module.to(image_N3HW.device, image_N3HW.dtype)
        return _pgd(twin, self.config)(image_N3HW, label_N)


@dataclass(frozen=True, kw_only=True)
class Roa:
    """A rectangle placed and filled against the network (Wu et al. 2020)."""

    config: RectangleConfig

    @property
    def name(self) -> str:
        """`roa`, `roa-gradient`, `roa-random`."""
        return "roa" if self.config.search == "exhaustive" else f"roa-{self.config.search}"

    def settings(self) -> dict[str, Any]:
        """Return size, search and steps."""
        return asdict(self.config)

    def __call__(self, network: nn.Module, image_N3HW: Tensor, label_N: Tensor, seed: int) -> Tensor:  # noqa: ARG002
        """Return images with a rectangle on each."""
        return attack_rectangles(lambda image: cross_entropy(network(image), label_N), image_N3HW, self.config)


@dataclass(frozen=True, kw_only=True)
class Auto:
    """AutoAttack, standard version (Croce & Hein 2020)."""

    config: PixelConfig
    version: str
    name: str = "autoattack"

    def settings(self) -> dict[str, Any]:
        """Return the ball and the package's version."""
        return {"eps": self.config.eps, "norm": self.config.norm, "version": self.version}

    def __call__(self, network: nn.Module, image_N3HW: Tensor, label_N: Tensor, seed: int) -> Tensor:
        """Return attacked images; the package's own doubts about the network are said."""
        config = AutoAttackConfig(eps=self.config.eps, norm=self.config.norm, seed=seed, batch_size=len(image_N3HW))
        found = auto_attack(network, image_N3HW, label_N, config)
        for warning in found.warnings:
            say(f"AutoAttack: {warning}")
        return found.image_N3HW


def _pgd(network: nn.Module, config: PixelConfig) -> Attempt:
    def attempt(image_N3HW: Tensor, label_N: Tensor) -> Tensor:
        return attack_pixels(lambda moved: cross_entropy(network(moved), label_N), image_N3HW, config)

    return attempt


@dataclass(frozen=True, kw_only=True)
class ThreatOptions:
    """What a user sets of the attacks that were asked for; what is left out is as the benchmark has it."""

    pixels: Mapping[str, Any] = field(default_factory=dict)
    """Fields of PixelConfig."""
    rectangle: Mapping[str, Any] = field(default_factory=dict)
    """Fields of RectangleConfig."""
    restarts: int | None = None
    """Of PGD."""
    twin: Checkpoint | None = None
    """Whose gradients the transfer attack uses."""

    def __post_init__(self) -> None:
        if self.restarts is not None and self.restarts < 1:
            raise UserError(f"The number of restarts is {self.restarts}; give 1 or more.")

    def given(self) -> set[str]:
        """Return the names of the command line's options that were set."""
        rectangle = {"rectangle-steps" if name == "steps" else name for name in self.rectangle}
        alone = {"restarts": self.restarts, "twin": self.twin}
        return {*self.pixels, *rectangle, *(name for name, value in alone.items() if value is not None)}


@dataclass(frozen=True, kw_only=True)
class _Bench:
    """What attacks are made of: the benchmark, and what the user set."""

    benchmark: Benchmark
    options: ThreatOptions

    def pixels(self, **preset: Any) -> PixelConfig:
        """The benchmark's ball and steps, then a preset's, then the user's."""
        return self.benchmark.ball(self.options.pixels, **preset)

    def pgd(self, restarts: int = 1, **preset: Any) -> Pgd:
        return Pgd(config=self.pixels(**preset), restarts=self.options.restarts or restarts)

    def transfer(self) -> Transfer:
        if self.options.twin is None:
            raise UserError("The transfer attack needs another network's gradients; give its run folder with --twin.")
        return Transfer(config=self.pixels(steps=STRONG_STEPS), twin=self.options.twin)

    def roa(self, search: Search) -> Roa:
        return Roa(config=RectangleConfig(**self.options.rectangle, search=search))


_MAKERS: dict[str, Callable[[_Bench], Threat]] = {
    "clean": lambda _: Clean(),
    "pgd": lambda bench: bench.pgd(),
    "pgd-50": lambda bench: bench.pgd(STRONG_RESTARTS, steps=STRONG_STEPS),
    "adaptive": lambda bench: Adaptive(config=bench.pixels(steps=STRONG_STEPS)),
    "transfer": lambda bench: bench.transfer(),
    "roa": lambda bench: bench.roa("exhaustive"),
    "roa-gradient": lambda bench: bench.roa("gradient"),
    "roa-random": lambda bench: bench.roa("random"),
    "autoattack": lambda bench: Auto(config=bench.pixels(), version=require_autoattack()),
}
_BALL = {"eps", "norm"}
_PIXELS = _BALL | {"steps", "step_size"}
_RECTANGLE = {"area", "height", "width", "stride", "colour", "rectangle-steps"}
_USED = {
    "clean": set[str](), "pgd": _PIXELS | {"restarts"}, "pgd-50": _PIXELS | {"restarts"}, "adaptive": _PIXELS,
    "transfer": _PIXELS | {"twin"}, "roa": _RECTANGLE, "roa-gradient": _RECTANGLE, "roa-random": _RECTANGLE,
    "autoattack": _BALL,
}  # fmt: skip
"""Options that change something, by attack."""
ATTACKS = tuple(_MAKERS)
"""Names that `abnn attack` knows: `pgd` is the paper's, the others ask whether it was enough."""


def threat_of(name: str, benchmark: Benchmark, options: ThreatOptions) -> Threat:
    """Return an attack by its name.

    Args:
        name: one of ATTACKS.
        benchmark: whose settings hold where the user gives none.
        options: what the user gives.

    Raises:
        UserError: there is none of this name, it is set to something impossible, or something that it needs is missing.
    """
    if name not in ATTACKS:
        raise UserError(f"There is no attack {name!r}; give one of {', '.join(ATTACKS)}.")
    return _MAKERS[name](_Bench(benchmark=benchmark, options=options))


def require_another(checkpoint: Checkpoint, twin: Checkpoint) -> None:
    """Refuse a twin that is the attacked network itself.

    Raises:
        UserError: see above.
    """
    if twin.checksum == checkpoint.checksum:
        raise UserError(f"The twin {twin.name} is the network {checkpoint.name} itself; give another one with --twin.")


def require_possible(threat: Threat, checkpoint: Checkpoint, compute: Compute) -> None:
    """Refuse an attack that cannot be carried out on a network, or would tell nothing.

    Raises:
        UserError: see above.
    """
    parts = isinstance(threat, Adaptive | Auto) or (isinstance(threat, Pgd) and threat.restarts > 1)
    if checkpoint.plan.uses_batch_statistics and parts:
        raise UserError(
            f"The attack {threat.name} tries again what is left of a batch, but the answers of {checkpoint.name} "
            "depend on the whole batch (--statistics batch); attack it with pgd, transfer or roa."
        )
    if isinstance(threat, Auto):
        require_classes(len(checkpoint.classes))
        if compute.precision == "fp64":
            raise UserError("AutoAttack's package works in float32; give another --precision than fp64.")


def require_used(names: Iterable[str], options: ThreatOptions) -> None:
    """Refuse an option that changes nothing in any of the attacks.

    Raises:
        UserError: see above.
    """
    names = list(names)
    idle = sorted(options.given() - set().union(*(_USED.get(name, set()) for name in names)))
    if idle:
        option = idle[0].replace("_", "-")
        raise UserError(f"The option --{option} changes nothing with --attack {' '.join(names)}; leave it out.")
