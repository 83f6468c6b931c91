"""Networks of a user's own: a classifier file from a plain state dict, and any module as a classifier."""

import copy
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from basics.errors import UserError
from basics.files import digest_json
from basics.progress import say
from networks.checkpoints import read_metadata, weights_checksum
from networks.classifiers import (
    TRANSFORMING,
    Classifier,
    classes_of,
    classifier_metadata,
    require_known,
    save_classifier,
    view_of,
)
from networks.normalise import PIXELS, Colours, Normalise, checked_colours
from networks.specs import TIMM_PREFIX, first_line, load_with_weights
from sources.base import ClassMap
from sources.classes import named_classes
from sources.decode import View

OWN_WEIGHTS = "own module"
"""What results call the origin of an own module's weights."""
INTERPOLATIONS = ("bilinear", "bicubic")
"""How images may be resized for a user's network."""
_NAMES_SHOWN = 3
_LENGTH_SHOWN = 60
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
"""The part of an object's text that is another one in each process."""


@dataclass(frozen=True, eq=False)
class OwnModel:
    """A network of your own that `score_models` and `GapReport.of` score beside others (paper 1, section 5.1).

    Of its results the class, its printed form (`repr`) and the state dict say which network it is: after further
    training it is another one. Changes of its code, or of plain attributes that it does not print, are not seen: give
    another name or folder then, or `overwrite=True`. A report calls it attacked if its state dict is that of the
    attacked network, keys and all: inside a wrapper, whose keys are others, it is called "not seen by the attack".

    Attributes:
        module: images (N, 3, S, S) in [0, 1], or normalised by `mean` and `std` -> logits (N, classes). A copy of it is
            used, in evaluation mode.
        classes: name of the class of each output, in their order: class folders of the data, such as wnids of ImageNet.
        image_size: side S of the square from the centre that it takes, in pixels.
        resize: length of an image's short side before that; None is `image_size`.
        squash: whether both sides are resized, whatever the shape of the image, as by torchvision's `Resize((S, S))`.
        interpolation: bilinear or bicubic, how images are resized.
        mean: of each colour, or one number for all three, subtracted; None takes pixels as they are.
        std: of each colour, or one number for all three, divided by; given with `mean`.

    Raises:
        UserError: the parts do not fit each other.

    Example, with class folders of images:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> import torch
        >>> from torch import nn
        >>> from advbn_gen import OwnModel, score_models
        >>> root = Path(tempfile.mkdtemp())
        >>> for name, colour in (("cat", "red"), ("dog", "blue")):
        ...     (root / "images" / name).mkdir(parents=True)
        ...     Image.new("RGB", (40, 30), colour).save(root / "images" / name / "1.png")
        >>> network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
        >>> _ = nn.init.zeros_(network[2].bias)
        >>> network[2].weight.data = 10 * nn.functional.one_hot(torch.tensor([0, 2]), 3).float()  # red: cat, blue: dog
        >>> mine = OwnModel(network, classes=["cat", "dog"], image_size=24)
        >>> (row,) = score_models({"mine": mine}, {"images": root / "images"}, root / "scores")
        >>> row["n"], row["top1"], row["transform"]
        (2, 1.0, 'resize 24 bilinear, crop 24')
    """

    module: nn.Module
    classes: Sequence[str] = field(kw_only=True)
    image_size: int = field(kw_only=True)
    resize: int | None = field(default=None, kw_only=True)
    squash: bool = field(default=False, kw_only=True)
    interpolation: str = field(default=INTERPOLATIONS[0], kw_only=True)
    mean: float | Sequence[float] | None = field(default=None, kw_only=True)
    std: float | Sequence[float] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if not isinstance(self.module, nn.Module):
            raise UserError(f"The module of an own model is {self.module!r}; give a torch.nn.Module.")
        if (
            isinstance(self.classes, str)
            or not isinstance(self.classes, Sequence)
            or not all(isinstance(name, str) for name in self.classes)
        ):
            raise UserError(f"The classes of an own model are {_shown(self.classes)}; give a list of names.")
        _parts_of(self)


def own_classifier(model: OwnModel, name: str) -> Classifier:
    """Return a user's own module as a classifier; the module is copied, and left as it is.

    Args:
        model: the module, and how images are prepared for it.
        name: its name in tables.

    Raises:
        UserError: it does not take such images, or gives other outputs than one for each class.
    """
    classes, view, colours = _parts_of(model)
    module = _copied(model.module, name)
    whole = nn.Sequential(Normalise(colours.mean, colours.std), module).eval().requires_grad_(False)
    _require_outputs(whole, view.crop, classes, f"The model {name}")
    # What else a module keeps there is no tensor.
    state = {key: value for key, value in module.state_dict().items() if isinstance(value, Tensor)}
    return Classifier(
        name=type(module).__name__,
        module=whole,
        classes=classes.count,
        weights=OWN_WEIGHTS,
        checksum=weights_checksum(state),
        view=view,
        class_map=classes,
        given_colours=colours,
        structure=digest_json(_ADDRESS.sub("", repr(module))),
        stated_classes=True,
    )


def _parts_of(model: OwnModel) -> tuple[ClassMap, View, Colours]:
    classes = named_classes(model.classes, "An own model")
    image_size = _whole("image_size", model.image_size)
    resize = None if model.resize is None else _whole("resize", model.resize)
    view = own_view(image_size, resize, squash=bool(model.squash), interpolation=model.interpolation)
    if (model.mean is None) != (model.std is None):
        raise UserError("Of mean and std of an own model's colours one is missing; give both, or neither.")
    if model.mean is None or model.std is None:
        return classes, view, PIXELS
    return classes, view, checked_colours(_numbers("mean", model.mean), _numbers("std", model.std))


def _whole(name: str, value: object) -> int:
    """Return a number of pixels.

    Raises:
        UserError: it is no whole number.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise UserError(f"The {name} of an own model is {_shown(value)}; give a whole number of pixels, such as 224.")
    return int(value)


def _numbers(name: str, values: Any) -> list[float]:
    """Return a number for each colour; one stands for three.

    Raises:
        UserError: they are no numbers.
    """
    each: Any = [values] * len(PIXELS.mean) if isinstance(values, Real) else values
    try:
        # The sum refuses texts, which `float` alone would read.
        return [float(value + 0.0) for value in each]
    except (TypeError, ValueError) as error:
        raise UserError(
            f"The {name} of an own model's colours is {_shown(values)}; give three numbers (red, green, blue), or one "
            "for all three."
        ) from error


def _shown(value: object) -> str:
    """Return the text of a value for a message, on one line and not too long."""
    text = " ".join(repr(value).split())
    return text if len(text) <= _LENGTH_SHOWN else f"{text[:_LENGTH_SHOWN]}..."


def _copied(module: nn.Module, name: str) -> nn.Module:
    """Return a copy of a network on the CPU, without what torch.compile and data parallelism put around it.

    Raises:
        UserError: it cannot be copied.
    """
    inner: Any = module
    while hasattr(inner, "_orig_mod") or isinstance(inner, DataParallel | DistributedDataParallel):
        inner = getattr(inner, "_orig_mod", None) or inner.module
    try:
        copied: nn.Module = copy.deepcopy(inner).float().cpu()
    except (RuntimeError, TypeError) as error:
        # NotImplementedError, which torch raises for weights on the meta device, is a RuntimeError.
        raise UserError(f"The module of {name} cannot be copied ({first_line(error)}); give one that can.") from error
    return copied


def own_view(image_size: int, resize: int | None, *, squash: bool, interpolation: str = INTERPOLATIONS[0]) -> View:
    """Return how images are prepared for a user's network; without `resize` the square is the whole short side.

    Raises:
        UserError: the sizes are too small, or do not fit each other, or there is no such interpolation.
    """
    if interpolation not in INTERPOLATIONS:
        raise UserError(f"There is no interpolation {interpolation!r}; give one of {', '.join(INTERPOLATIONS)}.")
    if image_size < 1:
        raise UserError(f"The image size is {image_size}; give 1 or more.")
    resize = image_size if resize is None else resize
    if resize < image_size:
        raise UserError(
            f"Images are resized to {resize} px, which is less than the {image_size} px that are cropped; give "
            f"{image_size} or more."
        )
    return View(crop=image_size, resize=resize, squash=squash, interpolation=interpolation)


def classes_at(path: Path) -> ClassMap:
    """Return the classes that a user names: the lines of a text file, or the sorted names of a folder's folders.

    Raises:
        UserError: there is no such file or folder, or it does not name classes.
    """
    what = f"--classes {path}"
    if path.is_dir():
        found = sorted(each.name for each in path.iterdir() if each.is_dir() and not each.name.startswith("."))
        if not found:
            raise UserError(f"{what} is a folder without class folders; give one, or a file with a name a line.")
        return named_classes(found, what)
    try:
        names = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except OSError as error:
        raise UserError(f"{what} cannot be read ({error.strerror}); check the path.") from error
    except UnicodeDecodeError as error:
        raise UserError(
            f"{what} is no text (UTF-8); give one class name a line, or a folder of class folders."
        ) from error
    while names and not names[-1]:
        names.pop()
    if "" in names:
        raise UserError(f"The line {names.index('') + 1} of {what} is empty; give one class name a line.")
    return named_classes(names, what)


def first_names(classes: ClassMap) -> str:
    """Return the names of the first classes, as messages show them."""
    return ", ".join(classes.names[:_NAMES_SHOWN]) + (", ..." if classes.count > _NAMES_SHOWN else "")


def import_classifier(  # noqa: PLR0913, PLR0917 (everything that a state dict does not say)
    arch: str, weights: Path, classes: ClassMap, view: View, colours: Colours | None, out: Path
) -> Colours:
    """Write a classifier file of ours from a plain state dict; return how its colours are prepared.

    Args:
        arch: the network, torchvision's or `timm:NAME`.
        weights: its weights, any file of which only tensors are read.
        classes: its classes in the order of its outputs.
        view: how images are prepared for it.
        colours: how their colours are; None takes what is usual for the network, with a notice.
        out: file to write.

    Raises:
        UserError: the weights cannot be read, do not fit the network, or have another number of outputs; they are a
            file of ours that says these things already; or the network does not take images of this size.
    """
    if not arch.startswith(TIMM_PREFIX):
        require_known(arch, option="--arch")
    _require_silent(weights, classes)
    # An absolute path is always that of a file, whatever it is called.
    found = load_with_weights(arch, str(weights.absolute()), None, "--arch")
    if found.classes != classes.count:
        raise UserError(
            f"The weights {weights} have {found.classes} outputs, but --classes names {classes.count} classes "
            f"({first_names(classes)}); give a name for each output."
        )
    network: nn.Module = found.module[1]  # type: ignore[index]
    if colours is None:
        if arch in TRANSFORMING:
            raise UserError(
                f"The colours for weights of {arch} differ; give --mean and --std (0.5 for each colour, if they were "
                "trained from torchvision's), or --no-normalisation."
            )
        colours = found.mean_std
        say(
            f"No colours were given: {colours.describe()} are taken, which are usual for {arch}; give --mean and "
            "--std, or --no-normalisation, if it was trained with others."
        )
    _require_outputs(nn.Sequential(Normalise(colours.mean, colours.std), network), view.crop, classes, arch)
    save_classifier(
        out, arch, network, classes, found.width,
        view=asdict(view), **colours.as_json(), facts={"imported": weights.name},
    )  # fmt: skip
    return colours


def _require_silent(weights: Path, classes: ClassMap) -> None:
    """Refuse a classifier file of ours that says what is given with it: it would be said otherwise without notice.

    Raises:
        UserError: see above.
    """
    metadata = classifier_metadata(read_metadata(weights)) if weights.suffix == ".safetensors" else {}
    if view_of(metadata) is not None or "mean" in metadata:
        raise UserError(
            f"{weights} says already how images are prepared for it: it is a SPEC, give it to --model (or "
            "--classifier) as it is."
        )
    if classes_of(metadata) not in {None, classes}:
        raise UserError(f"{weights} says already that it has other classes than --classes names; give these.")


@torch.no_grad()
def _require_outputs(module: nn.Module, side: int, classes: ClassMap, what: str) -> None:
    """Refuse a network that does not give one output for each class for images of a size.

    Raises:
        UserError: see above.
    """
    try:
        logits_NC = module.eval()(torch.full((2, 3, side, side), 0.5))
    except MemoryError:
        raise
    except Exception as error:
        # Whatever a network raises for images of another size.
        raise UserError(
            f"{what} does not take images of {side} px ({first_line(error)}); give the size that it was trained at."
        ) from error
    if not isinstance(logits_NC, Tensor):
        raise UserError(f"{what} gives a {type(logits_NC).__name__}; give a network that returns its logits alone.")
    if logits_NC.shape != (2, classes.count):
        raise UserError(
            f"{what} gives {tuple(logits_NC.shape[1:])} for an image, but {classes.count} classes are named; give a "
            "name for each output."
        )
