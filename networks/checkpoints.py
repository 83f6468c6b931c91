"""Reading weights of any origin without running code, and their checksums."""

import hashlib
import json
import pickle
import struct
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from basics.errors import UserError
from basics.files import atomic_path

StateDict = dict[str, Tensor]

_NAMES_SHOWN = 6
_HEADER_LENGTH = struct.Struct("<Q")
"""How a safetensors file starts: the length of its JSON header, which is padded to a multiple of 8."""


def read_weights(path: Path) -> StateDict:
    """Read a state dict from a safetensors or torch file.

    `{"state_dict": ...}` wrappers and `module.` prefixes (DataParallel) are taken off. Torch files are read with
    `weights_only=True`, so a pickle that holds code is refused, never run.

    Raises:
        UserError: the file is missing, may not be read, is truncated, holds code, or holds no state dict.
    """
    _require_readable(path)
    if _is_safetensors(path):
        return _unwrap(read_safetensors(path)[0], path)
    return _unwrap(_load_torch(path), path)


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
        # torch's unpickler raises nearly anything on bytes that are no checkpoint.
        raise UserError(_unreadable(path)) from error


def _unreadable(path: Path) -> str:
    return f"The file {path} is not a readable checkpoint (truncated, or another format); fetch it again."


def _unwrap(content: Any, path: Path) -> StateDict:
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not content:
        raise UserError(f"The file {path} holds no state dict (names with tensors); give another file.")
    if not all(isinstance(value, Tensor) for value in content.values()):
        raise UserError(f"The file {path} holds other things than tensors; give a plain state dict.")
    return {str(name).removeprefix("module."): value for name, value in content.items()}


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
        raise UserError(f"The weights do not fit {what}: {found}.")
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
