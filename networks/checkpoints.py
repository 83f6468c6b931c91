"""Reading weights of any origin without running code, and their checksums."""

import argparse
import hashlib
import json
import pickle
import struct
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from basics.errors import UserError
from basics.files import atomic_path
from basics.progress import say
from basics.reading import cannot_be_read

StateDict = dict[str, Tensor]

_NAMES_SHOWN = 6
_HEADER_LENGTH = struct.Struct("<Q")
"""How a safetensors file starts: the length of its JSON header, which is padded to a multiple of 8."""


_AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "ema")
"""Entries of a training's checkpoint with moving averages of the weights; timm takes the first two before others."""
_WEIGHTS = ("state_dict", "model", "model_state_dict")
"""Entries with the weights themselves."""
_PREFIXES = ("module.", "_orig_mod.", "model.")
"""What DataParallel and AveragedModel, torch.compile, and Lightning modules put before names."""
_COUNTER = "n_averaged"
"""What AveragedModel keeps beside the weights."""

_BATCHES = "num_batches_tracked"
"""Name of batch norm's counter, which old files and some averages lack."""

KnownNames = Callable[[StateDict], int]
"""State dict -> how much of it a reader knows by its names; 0 if it is none of what the reader takes."""


class Checkpoint(NamedTuple):
    """Weights of a file, and which of those in it they are."""

    state: StateDict
    """Name -> tensor."""
    averaged: str
    """Entry of the file that averaged weights were taken from; empty if it has none."""
    entries: frozenset[str] = frozenset()
    """Names of what a torch file holds at its top: those of a training's checkpoint, or the weights themselves."""


def read_weights(path: Path, known: KnownNames | None = None) -> StateDict:
    """Read a state dict, see `read_checkpoint`."""
    return read_checkpoint(path, known).state


def read_checkpoint(path: Path, known: KnownNames | None = None) -> Checkpoint:
    """Read a state dict from a safetensors or torch file, also from a training's checkpoint.

    Averaged weights are preferred to the last ones, as timm does, and a notice says so. Torch files are read with
    `weights_only=True`, so a pickle that holds code is refused, never run.

    Args:
        path: the file.
        known: how much of a state dict the reader knows. Prefixes such as `module.` (DataParallel) are taken off the
            names only where more of them are known then. None knows nothing with the prefix `module.`.

    Raises:
        UserError: the file is missing, may not be read, is truncated, holds code, or holds no state dict.
    """
    _require_readable(path)
    averaged, entries = "", frozenset[str]()
    if _is_safetensors(path):
        state = _checked(read_safetensors(path)[0], path)
    else:
        whole = _load_torch(path)
        content, averaged = _weights_within(whole, path)
        state, entries = _checked(content, path), frozenset(map(str, whole))
    if averaged:
        say(f"{path} holds averaged weights ({averaged}) beside the last ones; the averaged ones are taken.")
    return Checkpoint(_without_prefixes(state, known or _without_module), averaged, entries)


def known_by(module: nn.Module) -> KnownNames:
    """Return a function that counts which names of a state dict are those of a network."""
    names = module.state_dict().keys()
    return lambda state: len(names & state.keys())


def _without_module(state: StateDict) -> int:
    return sum(not name.startswith(_PREFIXES[0]) for name in state)


def _without_prefixes(state: StateDict, known: KnownNames) -> StateDict:
    """Return a state dict without the prefixes that hide known names, and with all others."""
    forms, following = {frozenset(state): state}, [state]
    while following:
        less = [each for form in following for prefix in _PREFIXES for each in _without_prefix(form, prefix)]
        following = [each for each in less if frozenset(each) not in forms]
        forms |= {frozenset(each): each for each in following}
    # Of forms of which as much is known the first, from which the fewest prefixes were taken off.
    return max(forms.values(), key=known)


def _without_prefix(state: StateDict, prefix: str) -> Iterator[StateDict]:
    """Yield a state dict without a prefix, if names have it, and if no two names become one."""
    if not any(name.startswith(prefix) for name in state):
        return
    less = {name.removeprefix(prefix): value for name, value in state.items() if name != _COUNTER}
    if len(less) == len(state) - (_COUNTER in state):
        yield less


def _require_readable(path: Path) -> None:
    if not path.is_file():
        raise UserError(f"There is no weights file {path}; check the path.")
    try:
        path.open("rb").close()
    except OSError as error:
        raise UserError(f"The weights file {path} cannot be read ({error.strerror}); check its permissions.") from error


def _is_safetensors(path: Path) -> bool:
    # The format starts with the header's length in 8 bytes, then the header's "{".
    with path.open("rb") as file:
        return path.suffix == ".safetensors" or file.read(9)[8:] == b"{"


def _load_torch(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            # On foreign files torch explains pickle protocols; our sentence is enough.
            warnings.simplefilter("ignore")
            # The options of a training, which timm's checkpoints hold: a plain object that runs nothing.
            with torch.serialization.safe_globals([argparse.Namespace]):
                return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "Weights only load failed" in str(error) and "global" in str(error).lower():
            raise UserError(
                f"The file {path} holds Python code besides weights and was not run; "
                "save it again as a plain state dict (torch.save(model.state_dict(), ...))."
            ) from error
        raise UserError(_unreadable(path)) from error
    except MemoryError:
        raise
    except Exception as error:
        if cannot_be_read(error):
            raise UserError(f"The weights file {path} cannot be read ({error}); check the disk.") from error
        # torch's unpickler raises nearly anything on bytes that are no checkpoint.
        raise UserError(_unreadable(path)) from error


def _unreadable(path: Path) -> str:
    return (
        f"The file {path} is not a readable checkpoint (truncated, or another format); fetch or make it again, or give "
        "another."
    )


def _weights_within(content: Any, path: Path) -> tuple[Any, str]:
    """Return the weights in a training's checkpoint, and the entry that averaged ones were taken from, if any."""
    averaged = ""
    while isinstance(content, Mapping):
        plain = next((name for name in _WEIGHTS if _may_hold_weights(content.get(name))), None)
        entry = plain
        for name in _AVERAGED:
            if _may_hold_weights(content.get(name)):
                if plain is None or _is_whole(content[name], content[plain]):
                    entry = averaged = name
                    break
                say(f"{path} holds averages ({name}) of some weights only; the last weights are taken.")
        if entry is None:
            break
        content = content[entry]
    return content, averaged


def _is_whole(averaged: Mapping[str, Any], plain: Mapping[str, Any]) -> bool:
    """Whether averages are of all weights: some trainings average parameters alone, without batch norm's buffers."""
    counted = [
        sum(isinstance(value, Tensor) and not name.endswith((_COUNTER, _BATCHES)) for name, value in entry.items())
        for entry in (averaged, plain)
    ]
    return counted[0] >= counted[1] or not counted[0]


def _may_hold_weights(entry: Any) -> bool:
    """Whether an entry is a state dict, or wraps one; a training's `ema` may also hold its settings."""
    if not isinstance(entry, Mapping) or not entry:
        return False
    return all(isinstance(value, Tensor) for value in entry.values()) or any(
        _may_hold_weights(entry.get(name)) for name in (*_AVERAGED, *_WEIGHTS)
    )


def _checked(content: Any, path: Path) -> StateDict:
    """Return a state dict, after a check that it is one.

    Raises:
        UserError: it is something else.
    """
    if not isinstance(content, Mapping) or not content:
        raise UserError(f"The file {path} holds no state dict (names with tensors); give another file.")
    if not all(isinstance(value, Tensor) for value in content.values()):
        raise UserError(f"The file {path} holds other things than tensors; give a plain state dict.")
    return {str(name): value for name, value in content.items()}


def read_safetensors(path: Path) -> tuple[StateDict, dict[str, str]]:
    """Read all tensors and the metadata of a safetensors file.

    Raises:
        UserError: the file is missing, truncated or of another format.
    """
    with _opened(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118 (no mapping)


def read_metadata(path: Path) -> dict[str, str]:
    """Read the metadata of a safetensors file, and no tensor.

    Raises:
        UserError: as `read_safetensors`.
    """
    with _opened(path) as file:
        return dict(file.metadata() or {})


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    _require_readable(path)
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise UserError(_unreadable(path)) from error


def own_metadata(metadata: Mapping[str, str], file_format: str) -> dict[str, Any]:
    """Return the values in the metadata of a file that this program wrote as `file_format`; empty for other files."""
    try:
        values = {name: json.loads(value) for name, value in metadata.items()}
    except ValueError:
        return {}
    return values if values.get("format") == file_format else {}


def write_safetensors(path: Path, state: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write tensors and metadata (JSON values) atomically; equal content gives equal bytes."""
    texts = {name: json.dumps(value, sort_keys=True) for name, value in metadata.items()}
    plain = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    content = save(plain, texts)
    # The library writes metadata in an order that changes from call to call.
    start = _HEADER_LENGTH.size + _HEADER_LENGTH.unpack_from(content)[0]
    header = json.dumps(json.loads(content[_HEADER_LENGTH.size : start]), sort_keys=True).encode()
    header += b" " * (-len(header) % _HEADER_LENGTH.size)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(_HEADER_LENGTH.pack(len(header)))
        file.write(header)
        file.write(memoryview(content)[start:])


def weights_checksum(state: Mapping[str, Tensor]) -> str:
    """Return a SHA-256 (hex) over names, types, shapes and values, whatever file they came in."""
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        digest.update(f"{name}|{value.dtype}|{tuple(value.shape)}|".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def load_into(module: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """Load `state` into `module`, every name and shape accounted for.

    Raises:
        UserError: names are missing or left over, or shapes differ; the first few are listed.
    """
    expected = module.state_dict()
    # Files from before torch 0.4.1 lack the counters of batch norm, which eval mode does not use.
    counters = {name for name in expected.keys() - state.keys() if name.endswith(".num_batches_tracked")}
    state = {**state, **{name: expected[name] for name in counters}}
    complaints = [
        _listed("missing", expected.keys() - state.keys()),
        _listed("unknown", state.keys() - expected.keys()),
        _listed(
            "of another shape",
            {
                f"{name} {tuple(state[name].shape)} instead of {tuple(expected[name].shape)}"
                for name in expected.keys() & state.keys()
                if expected[name].shape != state[name].shape
            },
        ),
    ]
    found = "; ".join(complaint for complaint in complaints if complaint)
    if found:
        raise UserError(f"The weights do not fit {what}: {found}; give weights of the same network.")
    # With the versions of torch's own layers, which decide whether they read a state dict as an old one.
    versioned = OrderedDict(state)
    versioned._metadata = getattr(expected, "_metadata", None)  # type: ignore[attr-defined]
    module.load_state_dict(versioned)


def _listed(kind: str, names: set[str]) -> str:
    if not names:
        return ""
    shown = ", ".join(sorted(names)[:_NAMES_SHOWN])
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return f"{kind}: {shown}{more}"
