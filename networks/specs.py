"""Any network by its SPEC: `NAME`, `timm:NAME`, `NAME=checkpoint`, `packaged:NAME`, or a run folder."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from basics.errors import UserError
from basics.progress import say
from networks.checkpoints import known_by, load_into, read_checkpoint, read_metadata, weights_checksum
from networks.classifiers import (
    IMAGENET_CLASSES,
    PUBLISHED,
    SEED_PREFIX,
    Classifier,
    build_network,
    classes_of,
    classifier_metadata,
    given_colours,
    is_known,
    is_seed_or_published,
    load_classifier,
    network_of_file,
    normalise_for,
    origin_of,
    published_classes,
    require_classes,
    require_known,
    seed_of,
    view_of,
)
from networks.normalise import IMAGENET_COLOURS, Normalise
from networks.packaged import PACKAGED_PREFIX, packaged, packaged_state
from networks.uninitialised import Uninitialised
from networks.weight_files import CLASSIFIER_FILE, MAIN_FILE
from sources.decode import View

TIMM_PREFIX = "timm:"
_CROP_MODES = ("center", "squash")


def load_model(
    spec: str, option: str = "--model", *, clips: bool = False, colours: str | None = None, notice: bool = True
) -> Classifier:
    """Load a network by its SPEC, frozen and in eval mode; `weights` and `view` say how it was published.

    A notice says what is assumed of a file that does not say how images are prepared.

    Args:
        spec: `NAME` (torchvision, its first published weights), `timm:NAME` (timm's pretrained weights),
            `NAME=WEIGHTS` or `timm:NAME=WEIGHTS` (a checkpoint file, or `seed:N` for a trial), `packaged:NAME` (see
            `networks.packaged`), a run folder of ours, or a classifier file of ours.
        option: the command's option for the SPEC, for messages.
        clips: whether it has to take clips, and not images.
        colours: how the colours of clips are prepared, see `networks.classifiers.load_classifier`.
        notice: whether to print the notice; not in each of several processes.

    Raises:
        UserError: there is no such network, its weights cannot be had or do not fit, or a package is not installed.

    Example:
        >>> import torch
        >>> from advbn_gen import load_model
        >>> model = load_model("squeezenet1_1=seed:0")  # with weights of a seed; `squeezenet1_1` has published ones
        >>> model.module(torch.rand(2, 3, 64, 64)).shape, model.module.training
        (torch.Size([2, 1000]), False)
    """
    found = _loaded(spec, option, clips=clips, colours=colours)
    if found.assumed and notice:
        view, colours_too = found.view, "ImageNet's colours"
        if found.mean_std != IMAGENET_COLOURS:
            colours_too = f"the colours of {found.name} ({found.mean_std.describe()})"
        say_assumed(spec, f"{view.crop} px from {view.resize} px and {colours_too}")
    return found


def say_assumed(spec: str, assumed: str) -> None:
    """Print the notice on a file that does not say how images are prepared for its network.

    Args:
        spec: the network's SPEC.
        assumed: what is taken.
    """
    say(
        f"{spec} does not say how images are prepared: {assumed} are taken; `advbn-gen import-classifier` writes a "
        "file that says so."
    )


def _loaded(spec: str, option: str, *, clips: bool, colours: str | None) -> Classifier:
    load = partial(load_classifier, option=option, clips=clips, colours=colours)
    if spec.startswith((TIMM_PREFIX, PACKAGED_PREFIX)) and clips:
        require_known(spec, clips=True, option=option)
    if spec.startswith(PACKAGED_PREFIX):
        return _load_timm(packaged(spec).arch, spec)
    if spec.startswith(TIMM_PREFIX):
        name, _, weights = spec.removeprefix(TIMM_PREFIX).partition("=")
        _refuse_packaged(weights)
        return _load_timm_file(name, weights) if weights else _load_timm(name, PUBLISHED)
    # A path first: it may have an equals sign in it.
    path = Path(spec)
    if path.exists() and is_known(spec):
        say(f"{spec} is a file or folder here, whose weights are taken in place of torchvision's.")
    if path.is_dir() or path.is_file():
        return _load_own(weights_file(path), load, clips=clips)
    name, equals, weights = spec.partition("=")
    if equals:
        if not weights:
            raise UserError(f"The model {spec!r} names no weights; give NAME=FILE, or NAME alone for published ones.")
        _refuse_packaged(weights)
        return load(name or None, weights)
    _refuse_missing_path(spec)
    return load(spec, PUBLISHED)


def _refuse_packaged(weights: str) -> None:
    """Refuse weights of a package where a file is meant: their name says the network, too."""
    if weights.startswith(PACKAGED_PREFIX):
        raise UserError(f"{weights} names network and weights; give it alone.")


def _refuse_missing_path(spec: str) -> None:
    """Refuse what looks like a path and is no file or folder; names of networks have no slash and no extension."""
    if not spec.startswith(TIMM_PREFIX) and (Path(spec).suffix or "/" in spec):
        raise UserError(f"There is no file or folder {spec}; check the path.")


def weights_file(path: Path) -> Path:
    """Return the weights file that a path means: itself, or the one in a run folder.

    Raises:
        UserError: it is a folder without weights.
    """
    return _weights_in(path) if path.is_dir() else path


def split_spec(spec: str) -> tuple[str | None, str]:
    """Return the name of the network that a SPEC says, and its weights.

    These are `published`, `seed:N`, `packaged:NAME` or an absolute path.

    The name is None where the SPEC is a file or a run folder of ours, which names its network. torchvision's names are
    names, also where a folder is called so: that one is `./NAME`.

    Raises:
        UserError: it is a folder without weights, a file that does not name its network or does not exist, or names no
            weights.
    """
    path = Path(spec)
    if spec and path.exists() and not is_known(spec):
        file = weights_file(path)
        if file.suffix != ".safetensors":
            raise UserError(f"The file {spec} does not say of which network it is; give NAME={spec}.")
        return None, str(file.absolute())
    if spec.startswith(PACKAGED_PREFIX):
        return TIMM_PREFIX + packaged(spec).arch, spec
    name, equals, weights = spec.partition("=")
    if not equals and spec:
        _refuse_missing_path(spec)
        return spec, PUBLISHED
    if not (name and weights):
        raise UserError(f"The model {spec!r} names no {'weights' if name else 'network'}; give NAME=FILE.")
    _refuse_packaged(weights)
    return name, weights if weights.startswith(SEED_PREFIX) else str(Path(weights).absolute())


def load_with_weights(name: str | None, weights: str, classes: int | None, option: str = "--classifier") -> Classifier:
    """Load a network by its name and weights, as `split_spec` returns them.

    Args:
        name: Name of the network, torchvision's or `timm:NAME`; None if the weights file names it.
        weights: `published`, `seed:N`, `packaged:NAME` or a file.
        classes: Number of outputs that are needed; None needs none.
        option: the command's option for the SPEC, for messages.

    Raises:
        UserError: as `load_model`, or it has another number of outputs.
    """
    if name is None:
        found = _load_own(Path(weights))
    elif name.startswith(TIMM_PREFIX):
        found = _load_timm_file(name.removeprefix(TIMM_PREFIX), weights)
    else:
        return load_classifier(name, weights, classes, option=option)
    require_classes(found.name, found.classes, classes)
    return found


def _load_own(
    path: Path, load: Callable[[None, str], Classifier] = load_classifier, *, clips: bool = False
) -> Classifier:
    """Load a network from a file whose metadata name it.

    Args:
        path: the file.
        load: how a network is loaded that is none of timm's.
        clips: whether it has to take clips.
    """
    metadata = classifier_metadata(read_metadata(path)) if path.suffix == ".safetensors" else {}
    name = str(metadata.get("name", ""))
    if not name.startswith(TIMM_PREFIX) or clips:
        return load(None, str(path))
    return _load_timm_file(name.removeprefix(TIMM_PREFIX), str(path))


def _load_timm_file(name: str, weights: str) -> Classifier:
    """Load a network of timm; a file of ours says how images are prepared for it, and its classes.

    Raises:
        UserError: as `load_model`, or the file is of another network.
    """
    path = Path(weights)
    metadata = classifier_metadata(read_metadata(path)) if path.suffix == ".safetensors" else {}
    stored = metadata.get("name", TIMM_PREFIX + name)
    if stored != TIMM_PREFIX + name:
        raise UserError(
            f"The weights {weights} are of a {stored}, not of a {TIMM_PREFIX}{name}; give the one that fits."
        )
    found = _load_timm(name, weights)
    normalise, network = found.module[0], found.module[1]  # type: ignore[index]
    given = given_colours(metadata, normalise)
    if given is not None:
        found = replace(found, module=nn.Sequential(Normalise(given.mean, given.std), network).eval())
    return replace(
        found,
        view=view_of(metadata) or found.view,
        class_map=classes_of(metadata) or found.class_map,
        given_colours=given,
        assumed=not (metadata or is_seed_or_published(weights)),
    )


def name_in_file(path: Path, *, whole: bool = False) -> str:
    """Return the network of which a weights file of ours is.

    Args:
        path: the file.
        whole: refuse a network that was made narrower.

    Raises:
        UserError: it is not our file, or see above.
    """
    metadata = classifier_metadata(read_metadata(path))
    if "name" not in metadata:
        raise UserError(f"The file {path} does not say of which network it is; give NAME={path}.")
    if whole and metadata.get("width", 1.0) != 1:
        width = metadata["width"]
        raise UserError(f"The network in {path} has width {width:g}; its front serves at width 1 only; give another.")
    return str(metadata["name"])


def blank_model(name: str) -> nn.Sequential:
    """Return a network behind its normalisation, with weights that may only be replaced (or for its shapes).

    Args:
        name: torchvision's, or `timm:NAME`.

    Raises:
        UserError: there is no such network, or timm is not installed.
    """
    with Uninitialised():
        if name.startswith(TIMM_PREFIX):
            network = _fresh_timm(name)
            return nn.Sequential(normalise_of(name, network), network)
        require_known(name)
        return nn.Sequential(normalise_for(name), network_of_file(name, IMAGENET_CLASSES))


def fresh_network(name: str, classes: int, width: float = 1.0, **options: Any) -> nn.Module:
    """Build a network with fresh weights from torch's global generator.

    Args:
        name: torchvision's, one of CLIP_NETWORKS, or `timm:NAME`.
        classes: number of outputs.
        width: factor of all channels, see `networks.width`; timm's networks have width 1.
        options: see `networks.classifiers.build_network`; timm's networks have none.

    Raises:
        UserError: there is no such network, timm is not installed, or its network should be narrower.
    """
    if not name.startswith(TIMM_PREFIX):
        return build_network(name, classes, width, **options)
    if width != 1:
        raise UserError(f"The network {name} cannot be made narrower; leave --width out, or give one of torchvision's.")
    return _fresh_timm(name, num_classes=classes)


def _fresh_timm(name: str, **options: Any) -> nn.Module:
    timm = _timm()
    network: nn.Module = _created(timm, _known_to_timm(timm, name.removeprefix(TIMM_PREFIX)), **options)
    return network


def require_named(name: str, *, clips: bool = False, option: str = "") -> None:
    """Refuse a name that is none of a network of images, or of clips: as `require_known`, with those of timm.

    Raises:
        UserError: see above, or timm is not installed.
    """
    if name.startswith(TIMM_PREFIX) and not clips:
        _known_to_timm(_timm(), name.removeprefix(TIMM_PREFIX))
    else:
        require_known(name, clips=clips, option=option)


def normalise_of(name: str, network: nn.Module, colours: str | None = None) -> Normalise:
    """Return the layer that prepares the colours of a network's images or clips.

    Args:
        name: torchvision's, one of CLIP_NETWORKS, or `timm:NAME`.
        network: the network, which says it itself if it is of timm.
        colours: of clips, see `networks.classifiers.normalise_for`.
    """
    if not name.startswith(TIMM_PREFIX):
        return normalise_for(name, colours)
    config = _timm().data.resolve_model_data_config(network)
    return Normalise(config["mean"], config["std"])


def label_of_spec(spec: str) -> str:
    """Return what tables call a model: its SPEC, with only the last part of a path."""
    path = Path(spec)
    if path.is_dir():
        return path.resolve().name
    if path.is_file():
        return path.stem
    name, equals, weights = spec.partition("=")
    return f"{name}={Path(weights).name}" if equals and not weights.startswith(SEED_PREFIX) else spec


def _weights_in(folder: Path) -> Path:
    found = [folder / name for name in (CLASSIFIER_FILE, MAIN_FILE) if (folder / name).is_file()]
    if len(found) > 1:
        raise UserError(f"The folder {folder} holds {CLASSIFIER_FILE} and {MAIN_FILE}; name the file that you mean.")
    if found:
        return found[0]
    raise UserError(
        f"The folder {folder} holds neither {CLASSIFIER_FILE} nor {MAIN_FILE}; give a run folder of a classifier."
    )


def _load_timm(name: str, weights: str) -> Classifier:
    timm = _timm("pretrained" if weights.startswith(PACKAGED_PREFIX) else "timm")
    network, origin = _timm_network(timm, _known_to_timm(timm, name), weights)
    config = timm.data.resolve_model_data_config(network)
    _, height, width = config["input_size"]
    if height != width or config["crop_mode"] not in _CROP_MODES:
        raise UserError(
            f"The timm model {name} takes images of {width}x{height} in crop mode {config['crop_mode']!r}; "
            f"only squares in the modes {' and '.join(_CROP_MODES)} are prepared here; give another model."
        )
    module = nn.Sequential(Normalise(config["mean"], config["std"]), network).eval().requires_grad_(False)
    published = weights == PUBLISHED or weights.startswith(PACKAGED_PREFIX)
    return Classifier(
        name=TIMM_PREFIX + name,
        module=module,
        classes=int(network.num_classes),
        weights=origin,
        checksum=weights_checksum(network.state_dict()),
        # As timm's own evaluation: the crop is this share of the resized short side.
        view=View(
            crop=height,
            resize=int(height / config["crop_pct"]),
            interpolation=config["interpolation"],
            squash=config["crop_mode"] == "squash",
        ),
        class_map=published_classes(int(network.num_classes)) if published else None,
        packages=("timm",),
    )


def _known_to_timm(timm: Any, name: str) -> str:
    """Return the name, unless timm has no such model.

    Raises:
        UserError: it has none.
    """
    if not timm.is_model(name):
        raise UserError(f"There is no timm model {name!r}; `timm.list_models()` names them all.")
    return name


def _timm_network(timm: Any, name: str, weights: str) -> tuple[Any, str]:
    """Return a network of timm with its weights, and the origin of these (see `Classifier.weights`)."""
    with torch.random.fork_rng(devices=[]):
        if weights.startswith(SEED_PREFIX):
            torch.manual_seed(seed_of(weights))
            return _created(timm, name, num_classes=IMAGENET_CLASSES), weights
        if weights == PUBLISHED:
            try:
                return timm.create_model(name, pretrained=True), weights
            except MemoryError:
                raise
            except Exception as error:
                # Of the network, the disk, Hugging Face's client, and anything that torch raises for a file cut short;
                # but if the network cannot be built without weights either, that is the fault.
                _created(timm, name)
                raise UserError(
                    f"The pretrained weights of timm:{name} cannot be had ({first_line(error)}); "
                    f"give a file, timm:{name}=FILE."
                ) from error
        network = _created(timm, name)
        if weights.startswith(PACKAGED_PREFIX):
            if packaged(weights).arch != name:
                raise UserError(f"{weights} is of timm's {packaged(weights).arch}, not of {name}; give it alone.")
            load_into(network, packaged_state(weights, network), f"the timm model {name}")
            return network, weights
        checkpoint = read_checkpoint(Path(weights), known_by(network))
        state = checkpoint.state
        head = state.get(f"{network.default_cfg['classifier']}.weight") if _has_one_head(network) else None
        if head is not None and head.shape[0] != network.num_classes:
            network = _created(timm, name, num_classes=head.shape[0])
        load_into(network, state, f"the timm model {name}")
        return network, origin_of(weights, checkpoint.averaged)


def _created(timm: Any, name: str, **options: Any) -> Any:
    """Build a network of timm without weights.

    Raises:
        UserError: timm does not build it, such as with a tag that does not exist.
    """
    try:
        return timm.create_model(name, **options)
    except MemoryError:
        raise
    except Exception as error:
        # timm's builders raise whatever they come upon.
        raise UserError(
            f"timm cannot build the model {name} ({first_line(error)}); `timm.list_models('*', pretrained=True)` "
            "names the models with their tags."
        ) from error


def _has_one_head(network: Any) -> bool:
    return isinstance(network.default_cfg.get("classifier"), str)


def _timm(extra: str = "timm") -> Any:
    try:
        import timm
    except ImportError as error:
        raise UserError(
            f"Models of timm need the package timm, which is not installed; pip install 'advbn-gen[{extra}]'."
        ) from error
    return timm


def first_line(error: Exception) -> str:
    """Return the first line of an error, or what it is called."""
    return (str(error).splitlines() or [type(error).__name__])[0]
