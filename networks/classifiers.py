"""Frozen classifiers of images or clips by name, with published, given or seeded weights."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchvision.models import get_model, get_model_weights, list_models

from basics.errors import UserError
from basics.files import digest_json
from basics.progress import say
from networks.checkpoints import (
    Checkpoint,
    StateDict,
    known_by,
    load_into,
    own_metadata,
    read_checkpoint,
    read_metadata,
    weights_checksum,
    write_safetensors,
)
from networks.normalise import CLIP_COLOURS, IMAGENET_COLOURS, Colours, Normalise, checked_colours
from networks.published_advbn import CLEAN, is_published_advbn, plain_state
from networks.uninitialised import Uninitialised
from networks.video import CLIP_NETWORKS, build_clip_network, own_colours
from networks.width import narrow, require_width
from sources.base import ClassMap, numbered_classes
from sources.classes import imagenet_map
from sources.decode import View

SEED_PREFIX = "seed:"
PUBLISHED = "published"
FORMAT = "advbn-gen classifier"
IMAGENET_CLASSES = 1000
TRANSFORMING = {"inception_v3", "googlenet"}
"""Networks with torchvision's option `transform_input`, which converts ImageNet's colours to those of weights that were
ported, mean and deviation 0.5."""
PUBLISHED_VIEW = View(crop=224, resize=256)
"""The field's evaluation of ImageNet classifiers."""
CLIP_VIEW = View(crop=112, resize=112)
"""How frames are prepared for the published networks of clips."""

_DENSENET_OLD_NAME = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")


@dataclass(frozen=True, kw_only=True)
class Classifier:
    """A classifier of images or clips in [0, 1], and where its weights come from; `load_model` returns one.

    Attributes:
        name: name of the network: torchvision's, one of CLIP_NETWORKS, or `timm:NAME`.
        module: (N, 3, H, W), or clips (N, 3, T, H, W), in [0, 1] -> logits (N, classes): a Sequential of the
            normalisation and the network as its library builds it.
        classes: number of outputs.
        weights: origin of the weights: `published`, `seed:N`, `packaged:NAME`, or a file's name with its averaged
            entry.
        checksum: SHA-256 over the weights.
        width: factor of all channels.
        view: how test images are prepared for it.
        class_map: which class each output is; None if that is not known.
        packages: Python packages that its predictions depend on besides torch and torchvision.
        colours: how it has the colours of clips prepared, one of CLIP_COLOURS; None for a classifier of images.
        real_outputs: outputs that are not always minus infinity, of a classifier of a part of ImageNet-1k (see
            `networks.heads`); empty if all are real.
        given_colours: mean and standard deviation of its colours, if its file (or its owner) gives others than are
            usual for a network of this name.
        structure: checksum over the printed form of a user's own module; empty for networks that their name builds.
        stated_classes: whether a user has stated the class of each output (`import-classifier`, `OwnModel`), and so may
            correct it.
        assumed: whether view and colours are the usual ones of the network because its file does not say any.

    Example:
        >>> from advbn_gen import Classifier, load_model
        >>> model = load_model("squeezenet1_1=seed:0")
        >>> isinstance(model, Classifier), model.classes, model.weights
        (True, 1000, 'seed:0')
    """

    name: str
    module: nn.Module
    classes: int
    weights: str
    checksum: str
    width: float = 1.0
    view: View = PUBLISHED_VIEW
    class_map: ClassMap | None = None
    packages: tuple[str, ...] = ()
    colours: str | None = None
    real_outputs: tuple[int, ...] = ()
    given_colours: Colours | None = None
    structure: str = ""
    stated_classes: bool = False
    assumed: bool = False

    @property
    def clips(self) -> bool:
        """Whether it takes clips."""
        return takes_clips(self.name)

    @property
    def outputs(self) -> ClassMap:
        """Which class each output is; without names if that is not known."""
        return self.class_map or numbered_classes(self.classes)

    @property
    def mean_std(self) -> Colours:
        """Mean and standard deviation by which it prepares colours."""
        return next(layer.colours for layer in self.module.modules() if isinstance(layer, Normalise))

    def summary(self) -> dict[str, Any]:
        """Return its entry in a manifest."""
        return {
            "name": self.name,
            "classes": self.classes,
            "weights": self.weights,
            "sha256": self.checksum,
            "width": self.width,
            **self.colours_given(),
            **class_order(self.real_outputs, stated=self.stated_classes),
        }

    def colours_given(self) -> dict[str, Any]:
        """Return `given_colours` as results and identities have them; empty if colours are the usual ones."""
        return {} if self.given_colours is None else {"colours": self.given_colours.as_json()}


def class_order(outputs: Sequence[int], *, stated: bool = False) -> dict[str, str]:
    """Return the order of outputs that are some of ImageNet-1k's classes, as results and identities have it.

    The weights do not say it, and a user may correct it. A training's own, in the order of ImageNet-1k itself, is left
    out: earlier versions did not record it.

    Args:
        outputs: ImageNet-1k index of each output; empty if all of ImageNet-1k are real.
        stated: whether the user has stated the classes, see `Classifier.stated_classes`.
    """
    known = list(outputs) == sorted(outputs) and not stated
    return {} if known or not outputs else {"class_order": digest_json(list(outputs))}


def is_known(name: str) -> bool:
    """Whether torchvision has a classifier of this name, or it is a network of clips."""
    return takes_clips(name) or name in list_models(module=_zoo())


def takes_clips(name: str) -> bool:
    """Whether this is the name of a network of clips."""
    return name in CLIP_NETWORKS


def require_known(name: str, *, clips: bool = False, option: str = "") -> None:
    """Refuse a name that is none of a classifier of images, or of clips.

    Args:
        name: Name of the network.
        clips: which of both it has to take.
        option: option that it comes from, for messages; empty if that is plain.

    Raises:
        UserError: see above.
    """
    if clips and not takes_clips(name):
        known = ", ".join(CLIP_NETWORKS)
        kind = "takes images, not clips" if is_known(name) or ":" in name else "is not known"
        raise UserError(f"The network {name} {kind}; give {f'{option} with ' if option else ''}one of {known}.")
    if not clips and takes_clips(name):
        with_option = f"{option} with " if option else ""
        raise UserError(f"The network {name} takes clips, not images; give {with_option}a network of images.")
    if not is_known(name):
        known = list_models(module=_zoo())
        similar = get_close_matches(name, known, 4) or ["vgg19", "resnet50", *known[:4]]
        raise UserError(f"There is no classifier {name!r}; give a torchvision name, e.g. {', '.join(similar)}.")


def normalise_for(name: str, colours: str | None = None) -> Normalise:
    """Return the layer that prepares the colours of a network's images or clips.

    Args:
        name: Name of the network.
        colours: of clips: one of CLIP_COLOURS; None takes the network's own.
    """
    if not takes_clips(name):
        return Normalise()
    chosen = CLIP_COLOURS[colours or own_colours(name)]
    return Normalise(chosen.mean, chosen.std, axes=3)


def require_colours(colours: str | None) -> None:
    """Refuse an unknown way to prepare the colours of clips; None is what is usual for a network.

    Raises:
        UserError: see above.
    """
    if colours is not None and colours not in CLIP_COLOURS:
        raise UserError(f"There is no normalisation {colours!r}; give one of {', '.join(CLIP_COLOURS)}.")


def build_network(name: str, classes: int, width: float = 1.0, **options: Any) -> nn.Module:
    """Build a classification network with fresh weights from torch's global generator.

    Args:
        name: torchvision name, or one of CLIP_NETWORKS.
        classes: number of outputs.
        width: factor of all channels, see `networks.width`.
        options: passed on to torchvision (`dropout`, `zero_init_residual`, ...); networks of clips have none.

    Raises:
        UserError: there is no such network.
    """
    if takes_clips(name):
        return _clip_network(name, classes, width)
    require_known(name)
    extra = {"init_weights": True} if name in TRANSFORMING else {}
    network: nn.Module = get_model(name, weights=None, num_classes=classes, **extra, **options)
    if hasattr(network, "aux_logits"):
        # Auxiliary heads stay in the state dict, but the network returns its logits alone.
        setattr(network, "aux_logits", False)  # noqa: B010 (an attribute that torch's types do not know)
    return narrow(network, width)


def network_of_file(name: str, classes: int, width: float = 1.0) -> nn.Module:
    """Build a network as one whose weights are given, see `build_network`."""
    # As torchvision does with weights: these were trained on colours prepared in another way.
    options = {"transform_input": True} if name in TRANSFORMING else {}
    return build_network(name, classes, width, **options)


def _clip_network(name: str, classes: int, width: float) -> nn.Module:
    require_width(width)
    if width == 1:
        return build_clip_network(name, classes)
    with torch.device("meta"):
        # The whole one would be tens of millions of weights, only to be replaced.
        whole = build_clip_network(name, classes)
    return narrow(whole, width)


def _zoo() -> Any:
    # Classification only: the sub-packages hold detection, segmentation and video.
    from torchvision import models

    return models


def load_classifier(  # noqa: PLR0913 (which network, with which weights, for what)
    name: str | None,
    weights: str,
    classes: int | None = None,
    *,
    option: str = "--classifier",
    clips: bool = False,
    colours: str | None = None,
) -> Classifier:
    """Load a classifier, frozen and in eval mode.

    Args:
        name: torchvision name, or one of CLIP_NETWORKS; may be left out if the weights file names it.
        weights: `published` (torchvision's first ImageNet weights, downloaded once), `seed:N` (fresh weights, for
            trials), or a file: plain state dict, or one that our training wrote.
        classes: number of outputs that the labels need; None takes what the weights have (1,000 if from a seed).
        option: the command's option for the SPEC of this classifier, for messages.
        clips: whether it has to take clips, and not images.
        colours: how the colours of clips are prepared, one of CLIP_COLOURS; None takes what the file says, or what is
            usual for the network.

    Raises:
        UserError: unknown name, weights that are unreadable or do not fit, or another number of classes.
    """
    metadata = _metadata(weights)
    name = _one_name(name, metadata.get("name"), weights, option)
    require_known(name, clips=clips, option=option)
    require_colours(colours)
    width = float(metadata.get("width", 1.0))
    origin = origin_of(weights)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if weights.startswith(SEED_PREFIX):
            torch.manual_seed(seed_of(weights))
            found = classes or IMAGENET_CLASSES
            network = build_network(name, found, width)
        elif weights == PUBLISHED:
            network = published_network(name, f"{option} {name}=FILE")
            found = _outputs(network, network.state_dict())
        else:
            meta = _meta_network(name)
            known = known_by(meta)
            checkpoint = read_checkpoint(Path(weights), lambda state: known(_present_names(state)))
            state, origin = _present_names(checkpoint.state), origin_of(weights, checkpoint.averaged)
            if clips:
                _require_of_network(state, meta, name, weights, option)
            colours = colours or metadata.get("colours") or _colours_of(name, checkpoint, weights)
            found = _outputs(meta, state)
            build = build_network if "mean" in metadata else network_of_file
            with Uninitialised():
                network = build(name, found, width)
            load_into(network, state, f"the classifier {name}")
        require_classes(name, found, classes)
    normalise = normalise_for(name, colours)
    given = None if clips else given_colours(metadata, normalise, whole=name in TRANSFORMING)
    normalise = normalise if given is None else Normalise(given.mean, given.std)
    module = nn.Sequential(normalise, network).eval().requires_grad_(False)
    return Classifier(
        name=name,
        module=module,
        classes=found,
        weights=origin,
        checksum=weights_checksum(network.state_dict()),
        width=width,
        view=view_of(metadata) or _published_view(name),
        class_map=published_classes(found) if weights == PUBLISHED else classes_of(metadata),
        colours=(colours or own_colours(name)) if clips else None,
        given_colours=given,
        # Only imported files state their colours, and what has been fine-tuned from them.
        stated_classes="mean" in metadata,
        assumed=not (clips or metadata or is_seed_or_published(weights)),
    )


def _colours_of(name: str, checkpoint: Checkpoint, weights: str) -> str | None:
    """Return how a file's network has colours prepared, if the file's form shows it; None takes what is usual."""
    if not takes_clips(name) or "scheduler" not in checkpoint.entries or own_colours(name) == "torchvision":
        return None
    say(
        f"{weights} holds a scheduler, as files of 3D-ResNets-PyTorch have done since 2020; so colours are prepared as "
        "that version does by default (kinetics). Give --normalisation (or --substitute-normalisation) if they were "
        "prepared otherwise when it was trained."
    )
    return "kinetics"


def is_seed_or_published(weights: str) -> bool:
    """Whether weights, as a user gave them, are those of no file."""
    return weights == PUBLISHED or weights.startswith(SEED_PREFIX)


def origin_of(weights: str, averaged: str = "") -> str:
    """Return what results call weights: `published`, `seed:N`, or a file's name.

    Args:
        weights: as a user gave them.
        averaged: entry of the file that averaged weights were taken from, if they were; it is added in brackets.
    """
    if is_seed_or_published(weights):
        return weights
    return f"{Path(weights).name} ({averaged})" if averaged else Path(weights).name


def published_classes(count: int) -> ClassMap | None:
    """Return the classes of published weights with so many outputs: those of ImageNet-1k; None for other numbers."""
    return imagenet_map() if count == IMAGENET_CLASSES else None


def classes_of(metadata: Mapping[str, Any]) -> ClassMap | None:
    """Return the classes of a network according to its file's metadata; None if they do not say."""
    if metadata.get("imagenet"):
        return imagenet_map()
    names = metadata.get("class_names")
    return None if names is None else ClassMap(names=tuple(names), imagenet=False)


def view_of(metadata: Mapping[str, Any]) -> View | None:
    """Return how images are prepared for a network according to its file's metadata; None if they do not say."""
    if "view" in metadata:
        return View(**metadata["view"])
    side = metadata.get("image_size")
    return None if side is None else View(crop=side, resize=side)


def given_colours(metadata: Mapping[str, Any], usual: Normalise, *, whole: bool = False) -> Colours | None:
    """Return mean and standard deviation that a file's metadata give; None if they give none, or the usual ones.

    Args:
        metadata: of the file.
        usual: how colours are prepared for a network of this name.
        whole: whether a network from a file that gives none prepares them further (see TRANSFORMING).
    """
    if "mean" not in metadata:
        return None
    colours = checked_colours(metadata["mean"], metadata["std"])
    return None if colours == usual.colours and not whole else colours


def _published_view(name: str) -> View:
    """Return how images are prepared for torchvision's first weights of a network."""
    if takes_clips(name):
        return CLIP_VIEW
    try:
        published = next(iter(get_model_weights(name))).transforms()
    except (StopIteration, ValueError):
        return PUBLISHED_VIEW
    (crop,), (resize,) = published.crop_size, published.resize_size
    return View(crop=crop, resize=resize, interpolation=published.interpolation.value)


def _present_names(state: StateDict) -> StateDict:
    """Return a state dict under today's names.

    torchvision's published DenseNet files say `norm.1` for `norm1`; the AdvBN authors have a layout of their own, of
    which the main batch norm is taken.
    """
    if is_published_advbn(state):
        return plain_state(state, CLEAN)
    return {_DENSENET_OLD_NAME.sub(r"\1\2", name): value for name, value in state.items()}


def require_classes(name: str, found: int, needed: int | None) -> None:
    """Refuse a classifier with another number of outputs than the labels need; None needs none.

    Raises:
        UserError: see above.
    """
    if needed is not None and found != needed:
        advice = naming_advice(numbered_classes(found), imagenet_map()) if needed == IMAGENET_CLASSES else ""
        raise UserError(
            f"The classifier {name} has {found} classes but the data set's labels need {needed}; "
            f"give a classifier trained on these labels (--classifier, --classifier-weights){advice}."
        )


def naming_advice(classes: ClassMap, labels: ClassMap) -> str:
    """Return what else a user can do whose network may be one of some of ImageNet's classes; empty if it cannot be.

    Args:
        classes: the network's, which are not the labels' and not called by wnids.
        labels: the classes of a data set.
    """
    if not labels.imagenet or classes.count >= labels.count:
        return ""
    return (
        ", or, if its classes are some of ImageNet's, name these by their wnids with `advbn-gen import-classifier "
        "--classes`"
    )


def seed_of(weights: str) -> int:
    """Return N of `seed:N`.

    Raises:
        UserError: N is no number from 0.
    """
    digits = weights.removeprefix(SEED_PREFIX)
    if not digits.isdecimal() or int(digits) >= 2**63:
        raise UserError(f"The weights are {weights!r}; give seed:N with a whole number N from 0, or a file.")
    return int(digits)


def _metadata(weights: str) -> dict[str, Any]:
    """Return the metadata of a weights file of ours; empty for other files."""
    path = Path(weights)
    if path.suffix != ".safetensors":
        return {}
    return classifier_metadata(read_metadata(path))


def classifier_metadata(metadata: Mapping[str, str]) -> dict[str, Any]:
    """Return the metadata of a classifier's file of ours; empty for other files."""
    return own_metadata(metadata, FORMAT)


def _one_name(given: str | None, stored: str | None, weights: str, option: str) -> str:
    if given and stored and given != stored:
        raise UserError(f"The weights {weights} are of a {stored}, not of a {given}; give the one that fits.")
    name = given or stored
    if not name:
        raise UserError(f"The weights {weights} do not say of which network they are; give {option} NAME={weights}.")
    return name


def _meta_network(name: str) -> nn.Module:
    """Return a network on the meta device, which has no values: for the names and kinds of its layers."""
    with torch.device("meta"):
        return build_network(name, IMAGENET_CLASSES)


def head_of(network: nn.Module) -> str:
    """Return the name of a network's last layer with weights, which gives the logits."""
    paths: list[str] = [path for path, layer in network.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    return paths[-1]


def _require_of_network(state: StateDict, meta: nn.Module, name: str, weights: str, option: str) -> None:
    """Refuse weights of images, or of another network of clips: that of a file is easily mistaken.

    Raises:
        UserError: see above.
    """
    if {value.ndim for value in state.values()} & {4, 5} == {4}:
        raise UserError(f"The weights {weights} are of a network of images, not of clips; give {option} with others.")
    names = _without_counters(state)
    if names == _without_counters(meta.state_dict()):
        return
    for other in CLIP_NETWORKS:
        if names == _without_counters(_meta_network(other).state_dict()):
            raise UserError(
                f"The weights {weights} are of a {other}, not of a {name}; give {option} {other}={weights}."
            )


def _without_counters(state: StateDict) -> set[str]:
    return {name for name in state if not name.endswith(".num_batches_tracked")}


def _outputs(network: nn.Module, state: StateDict) -> int:
    """Return how many classes weights have, read off the network's last layer with weights."""
    weight = state.get(f"{head_of(network)}.weight")
    return IMAGENET_CLASSES if weight is None else weight.shape[0]


def published_network(name: str, option: str) -> nn.Module:
    """Return a torchvision network with its first published weights, downloaded once.

    Raises:
        UserError: there are none, they want other colours than ImageNet's mean and std (or those of its networks of
            clips), or they could not be downloaded; `option` is how a user gives a file instead.
    """
    try:
        # The first weights in torchvision's list are the ones of the papers (ResNet-50: 76.1, not the newer recipe).
        weights = next(iter(get_model_weights(name)))
    except (StopIteration, ValueError) as error:
        raise UserError(f"torchvision publishes no weights of {name}; give a file with {option}.") from error
    expected = CLIP_COLOURS["torchvision"] if takes_clips(name) else IMAGENET_COLOURS
    if Colours(tuple(weights.transforms().mean), tuple(weights.transforms().std)) != expected:
        raise UserError(f"The published weights of {name} need other colours than ImageNet's; give another network.")
    try:
        network: nn.Module = get_model(name, weights=weights)
    except MemoryError:
        raise
    except Exception as error:
        # Of the network, the disk, the file's checksum, and anything that torch raises for a file cut short.
        raise UserError(
            f"The published weights of {name} could not be downloaded ({error}); give a file with {option}."
        ) from error
    return network


def save_classifier(
    path: Path, name: str, network: nn.Module, classes: ClassMap, width: float, **metadata: Any
) -> None:
    """Write a classifier's plain torchvision state dict as safetensors with name, classes and width as metadata."""
    save_classifier_state(path, name, network.state_dict(), classes, width, **metadata)


def save_classifier_state(
    path: Path, name: str, state: StateDict, classes: ClassMap, width: float, **metadata: Any
) -> None:
    """Write a state dict as `save_classifier` writes that of its network."""
    described = {"format": FORMAT, "name": name, "classes": classes.count, "width": width, **metadata}
    if classes.named:
        # The thousand names of ImageNet-1k are known.
        described |= {"imagenet": True} if classes.imagenet else {"class_names": list(classes.names)}
    write_safetensors(path, state, described)
