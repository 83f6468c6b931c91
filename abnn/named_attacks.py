"""The attacks of the tables by name: their settings, and how each changes images."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from torch import Tensor, nn

from abnn.adaptive import adaptive_attack
from abnn.benchmarks import Benchmark
from abnn.checkpoint import Checkpoint
from abnn.options import PixelOptions, RectangleOptions
from attacks.ascent import LossOf
from attacks.autoattack import AutoAttackConfig, auto_attack, require_autoattack, require_classes
from attacks.micro_batches import in_micro_batches, outputs_in_micro_batches
from attacks.objectives import cross_entropy, margin
from attacks.pixels import PixelConfig, attack_pixels
from attacks.rectangles import RectangleConfig, Search, attack_rectangles
from attacks.restarts import Attempt, strongest
from basics.compute import Compute
from basics.errors import UserError
from basics.options import refuse_unused_options
from basics.progress import say
from networks.video import set_cut_shortcuts

STRONG_STEPS = 50
STRONG_RESTARTS = 5
ADAPTIVE_WEIGHTS = (0.0, 1.0, 10.0, 100.0)
"""Weights of the drift beside the margin, one restart each."""


class Attack(Protocol):
    """One attack, ready to be carried out."""

    @property
    def name(self) -> str:
        """Name in tables."""
        ...

    def settings(self) -> dict[str, Any]:
        """Return the settings that distinguish it from other attacks, as JSON values."""
        ...

    def __call__(
        self, network: nn.Module, image_N3HW: Tensor, label_N: Tensor, seed: int, micro_batch: int | None = None
    ) -> Tensor:
        """Return attacked images, or clips, for a frozen network in evaluation mode.

        Random numbers come from torch's global generator, or from `seed` where a library draws them.

        Args:
            network: images in [0, 1] -> logits.
            image_N3HW: images, or clips (N, 3, T, H, W).
            label_N: true classes.
            seed: for libraries that draw random numbers themselves.
            micro_batch: most samples in one pass of the network, which changes no result; None: the whole batch.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Clean:
    """No attack: the images as they are."""

    name: str = "clean"

    def settings(self) -> dict[str, Any]:
        """Return no settings: nothing can be set."""
        return {}

    def __call__(
        self,
        network: nn.Module,  # noqa: ARG002
        image_N3HW: Tensor,
        label_N: Tensor,  # noqa: ARG002
        seed: int,  # noqa: ARG002
        micro_batch: int | None = None,  # noqa: ARG002
    ) -> Tensor:
        """Return the images."""
        return image_N3HW


@dataclass(frozen=True, kw_only=True)
class Pgd:
    """PGD on the complete network, from one or more random starts (Madry et al. 2018)."""

    config: PixelConfig
    """Ball and steps."""
    restarts: int = 1
    """Random starts, of which the strongest counts for each image."""

    @property
    def name(self) -> str:
        """`pgd-5`, `pgd-50x5`."""
        return f"pgd-{self.config.steps}" + (f"x{self.restarts}" if self.restarts > 1 else "")

    def settings(self) -> dict[str, Any]:
        """Return ball, steps and restarts."""
        return {**asdict(self.config), "restarts": self.restarts}

    def __call__(
        self,
        network: nn.Module,
        image_N3HW: Tensor,
        label_N: Tensor,
        seed: int,  # noqa: ARG002
        micro_batch: int | None = None,
    ) -> Tensor:
        """Return the strongest of the restarts."""
        attempt = _pgd(network, self.config, micro_batch)
        if self.restarts == 1:
            # As published: every image is attacked, also one that is misclassified as it is.
            return attempt(image_N3HW, label_N)
        outputs_of = outputs_in_micro_batches(network, micro_batch)
        return strongest([attempt] * self.restarts, outputs_of, image_N3HW, label_N).image_N3HW


@dataclass(frozen=True, kw_only=True)
class Adaptive:
    """PGD that also changes what the substitute provides (see `abnn.adaptive`), one restart for each weight."""

    config: PixelConfig
    """Ball and steps."""
    weights: tuple[float, ...] = ADAPTIVE_WEIGHTS
    """Weights of the drift beside the margin."""
    name: str = "adaptive"

    def settings(self) -> dict[str, Any]:
        """Return ball, steps and weights."""
        return {**asdict(self.config), "weights": list(self.weights)}

    def __call__(
        self,
        network: nn.Module,
        image_N3HW: Tensor,
        label_N: Tensor,
        seed: int,  # noqa: ARG002
        micro_batch: int | None = None,
    ) -> Tensor:
        """Return the strongest of the restarts."""
        attempts = [adaptive_attack(network, self.config, weight, micro_batch) for weight in self.weights]
        outputs_of = outputs_in_micro_batches(network, micro_batch)
        return strongest(attempts, outputs_of, image_N3HW, label_N, margin).image_N3HW


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """PGD on a surrogate network of the same classes: an attack without access to the attacked network."""

    config: PixelConfig
    """Ball and steps."""
    surrogate: Checkpoint
    """The network whose gradients are used."""
    name: str = "transfer"

    def settings(self) -> dict[str, Any]:
        """Return ball, steps and the network whose gradients are used."""
        # The names `twin` and `twin_sha256` are part of the identity of stored results.
        return {**asdict(self.config), "twin": self.surrogate.name, "twin_sha256": self.surrogate.checksum}

    def __call__(
        self,
        network: nn.Module,  # noqa: ARG002
        image_N3HW: Tensor,
        label_N: Tensor,
        seed: int,  # noqa: ARG002
        micro_batch: int | None = None,
    ) -> Tensor:
        """Return images that are attacked on the surrogate."""
        surrogate = self.surrogate.module.to(image_N3HW.device, image_N3HW.dtype)
        return _pgd(surrogate, self.config, micro_batch)(image_N3HW, label_N)


@dataclass(frozen=True, kw_only=True)
class Roa:
    """A rectangle placed and filled against the network (Wu et al. 2020)."""

    config: RectangleConfig
    """Size, search and steps."""

    @property
    def name(self) -> str:
        """`roa`, `roa-gradient`, `roa-random`, and `roa-random-fixed` with one position for all frames of a clip."""
        if self.config.search == "exhaustive":
            return "roa"
        return f"roa-{self.config.search}" + ("" if self.config.per_frame else "-fixed")

    def settings(self) -> dict[str, Any]:
        """Return size, search and steps."""
        settings = asdict(self.config)
        if self.config.per_frame or self.config.search == "exhaustive":
            # As published, and without a meaning for images, whose stored results have no such setting.
            del settings["per_frame"]
        return settings

    def __call__(
        self,
        network: nn.Module,
        image_N3HW: Tensor,
        label_N: Tensor,
        seed: int,  # noqa: ARG002
        micro_batch: int | None = None,
    ) -> Tensor:
        """Return images with a rectangle on each."""
        return attack_rectangles(_cross_entropy_of(network, label_N, micro_batch), image_N3HW, self.config)


@dataclass(frozen=True, kw_only=True)
class AutoAttack:
    """AutoAttack, standard version (Croce & Hein 2020)."""

    config: PixelConfig
    """Ball; AutoAttack chooses its own steps."""
    version: str
    """Version of its authors' package."""
    name: str = "autoattack"

    def settings(self) -> dict[str, Any]:
        """Return the ball and the package's version."""
        return {"eps": self.config.eps, "norm": self.config.norm, "version": self.version}

    def __call__(
        self,
        network: nn.Module,
        image_N3HW: Tensor,
        label_N: Tensor,
        seed: int,
        micro_batch: int | None = None,  # noqa: ARG002
    ) -> Tensor:
        """Return attacked images; the package's own warnings about the network are printed."""
        config = AutoAttackConfig(eps=self.config.eps, norm=self.config.norm, seed=seed, batch_size=len(image_N3HW))
        found = auto_attack(network, image_N3HW, label_N, config)
        for warning in found.warnings:
            say(f"AutoAttack: {warning}")
        return found.image_N3HW


def _pgd(network: nn.Module, config: PixelConfig, micro_batch: int | None) -> Attempt:
    def attempt(image_N3HW: Tensor, label_N: Tensor) -> Tensor:
        return attack_pixels(_cross_entropy_of(network, label_N, micro_batch), image_N3HW, config)

    return attempt


def _cross_entropy_of(network: nn.Module, label_N: Tensor, micro_batch: int | None) -> LossOf:
    return in_micro_batches(lambda moved, part: cross_entropy(network(moved), label_N[part]), micro_batch)


@dataclass(frozen=True, kw_only=True)
class AttackOptions:
    """Settings of attacks that a user gives; the benchmark's hold for all others."""

    pixels: PixelOptions = field(default_factory=PixelOptions)
    """Changes of the attack on pixels."""
    rectangle: RectangleOptions = field(default_factory=RectangleOptions)
    """Changes of the attack with rectangles."""
    restarts: int | None = None
    """Random starts of PGD; None takes the attack's own number."""
    surrogate: Checkpoint | None = None
    """The network whose gradients the transfer attack uses."""
    cut_shortcut: bool = False
    """Whether gradients are cut in shortcuts without weights, as published (see `networks.video`)."""

    def __post_init__(self) -> None:
        if self.restarts is not None and self.restarts < 1:
            raise UserError(f"The number of restarts is {self.restarts}; give 1 or more.")

    def given(self) -> set[str]:
        """Return the names of the command line's options that were set."""
        own = {
            "steps": "rectangle-steps", "step_size": "rectangle-step-size", "per_frame": "fixed-rectangle"
        }  # fmt: skip
        rectangle = {own.get(name, name) for name in self.rectangle.given()}
        alone = {
            "restarts": self.restarts, "surrogate": self.surrogate, "cut-shortcut": self.cut_shortcut or None
        }  # fmt: skip
        return {*self.pixels.given(), *rectangle, *(name for name, value in alone.items() if value is not None)}


@dataclass(frozen=True, kw_only=True)
class _AttackFactory:
    """Makes attacks with the settings of a benchmark and of the user."""

    benchmark: Benchmark
    options: AttackOptions

    def pixels(self, **preset: Any) -> PixelConfig:
        """Return the benchmark's ball and steps, changed by a preset and then by the user's settings."""
        return self.benchmark.ball(self.options.pixels, **preset)

    def pgd(self, restarts: int = 1, **preset: Any) -> Pgd:
        return Pgd(config=self.pixels(**preset), restarts=self.options.restarts or restarts)

    def transfer(self) -> Transfer:
        if self.options.surrogate is None:
            raise UserError(
                "The transfer attack needs another network's gradients; give its run folder with --surrogate."
            )
        return Transfer(config=self.pixels(steps=STRONG_STEPS), surrogate=self.options.surrogate)

    def auto(self) -> AutoAttack:
        if self.benchmark.media == "clip":
            raise UserError(
                f"AutoAttack's package takes images, and {self.benchmark.name} has clips; give pgd-50 and adaptive."
            )
        return AutoAttack(config=self.pixels(), version=require_autoattack())

    def roa(self, search: Search) -> Roa:
        if self.options.rectangle.per_frame is not None and self.benchmark.media != "clip":
            raise UserError(f"--fixed-rectangle is for clips, and {self.benchmark.name} has images; leave it out.")
        return Roa(config=RectangleConfig(**self.options.rectangle.given(), search=search))


_MAKERS: dict[str, Callable[[_AttackFactory], Attack]] = {
    "clean": lambda _: Clean(),
    "pgd": lambda make: make.pgd(),
    "pgd-50": lambda make: make.pgd(STRONG_RESTARTS, steps=STRONG_STEPS),
    "adaptive": lambda make: Adaptive(config=make.pixels(steps=STRONG_STEPS)),
    "transfer": lambda make: make.transfer(),
    "roa": lambda make: make.roa("exhaustive"),
    "roa-gradient": lambda make: make.roa("gradient"),
    "roa-random": lambda make: make.roa("random"),
    "autoattack": lambda make: make.auto(),
}
_BALL = {"eps", "norm"}
_PIXELS = _BALL | {"steps", "step_size"}
_CUT = "cut-shortcut"
_RECTANGLE = {"area", "height", "width", "stride", "colour", "rectangle-steps", "rectangle-step-size", _CUT}
_FIXED = _RECTANGLE | {"fixed-rectangle"}
_USED = {
    "clean": set[str](), "pgd": _PIXELS | {"restarts", _CUT}, "pgd-50": _PIXELS | {"restarts", _CUT},
    "adaptive": _PIXELS | {_CUT}, "transfer": _PIXELS | {"surrogate"}, "roa": _RECTANGLE, "roa-gradient": _FIXED,
    "roa-random": _FIXED - {"stride"}, "autoattack": _BALL,
}  # fmt: skip
"""Attack -> options that have an effect on it."""
ATTACKS = tuple(_MAKERS)
"""Names that `abnn attack` knows: `pgd` is the paper's, the others test whether it was strong enough."""


def attack_of(name: str, benchmark: Benchmark, options: AttackOptions) -> Attack:
    """Return an attack by its name.

    Args:
        name: one of ATTACKS.
        benchmark: its settings hold where the user gives none.
        options: the user's settings.

    Raises:
        UserError: there is no attack of this name, a setting is impossible, or something that it needs is missing.
    """
    if name not in ATTACKS:
        raise UserError(f"There is no attack {name!r}; give one of {', '.join(ATTACKS)}.")
    return _MAKERS[name](_AttackFactory(benchmark=benchmark, options=options))


def cuts_shortcuts(name: str, options: AttackOptions) -> bool:
    """Return whether an attack, by its name, is one with cut gradients: only those on the network's own gradients."""
    return options.cut_shortcut and _CUT in _USED[name]


def keeps_clips(attack: Attack) -> bool:
    """Whether some clips are kept of an attack: it is the paper's PGD, or a rectangle."""
    return isinstance(attack, Roa) or (isinstance(attack, Pgd) and attack.restarts == 1)


def require_another(checkpoint: Checkpoint, surrogate: Checkpoint) -> None:
    """Refuse a surrogate that is the attacked network itself.

    Raises:
        UserError: see above.
    """
    if surrogate.checksum == checkpoint.checksum:
        raise UserError(
            f"The surrogate {surrogate.name} is the network {checkpoint.name} itself; give another one with "
            "--surrogate."
        )


def require_possible(attack: Attack, checkpoint: Checkpoint, compute: Compute, micro_batch: int | None = None) -> None:
    """Refuse an attack that cannot be carried out on a network, or whose result would be meaningless.

    Raises:
        UserError: see above.
    """
    require_own_predictions(checkpoint, micro_batch)
    splits_batches = isinstance(attack, Adaptive | AutoAttack) or (isinstance(attack, Pgd) and attack.restarts > 1)
    if checkpoint.plan.uses_batch_statistics and splits_batches:
        raise UserError(
            f"The attack {attack.name} tries again what is left of a batch, but the predictions of {checkpoint.name} "
            "depend on the whole batch (--statistics batch); attack it with pgd, transfer or roa."
        )
    if isinstance(attack, AutoAttack):
        require_classes(len(checkpoint.classes))
        if micro_batch is not None:
            raise UserError("AutoAttack's package passes whole batches; give --batch-size instead of --micro-batch.")
        if compute.precision == "fp64":
            raise UserError("AutoAttack's package works in float32; give another --precision than fp64.")


def require_shortcuts(checkpoint: Checkpoint) -> None:
    """Refuse to cut gradients in a network that has no shortcut without weights.

    Raises:
        UserError: see above.
    """
    if not set_cut_shortcuts(checkpoint.module, cut=False):
        raise UserError(
            f"The network {checkpoint.name} has no shortcut without weights, whose gradient --cut-shortcut cuts (as "
            "hara_resnet18 has, alone or as a substitute); leave the option out."
        )


def require_own_predictions(checkpoint: Checkpoint, micro_batch: int | None) -> None:
    """Refuse micro-batches for a network whose predictions depend on the whole batch.

    Raises:
        UserError: see above.
    """
    if micro_batch is not None and checkpoint.plan.uses_batch_statistics:
        raise UserError(
            f"The predictions of {checkpoint.name} depend on the whole batch (--statistics batch), and micro-batches "
            "would change them; leave --micro-batch out."
        )


def require_used(names: Iterable[str], options: AttackOptions) -> None:
    """Refuse an option that has no effect on any of the attacks.

    Raises:
        UserError: see above.
    """
    names = list(names)
    unused = sorted(options.given() - set().union(*(_USED.get(name, set()) for name in names)))
    refuse_unused_options(unused, f"with --attack {' '.join(names)}")
