"""Writes files that are whole or absent, and computes their checksums."""

import hashlib
import io
import json
import os
import re
import secrets
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast

from upath import UPath

from basics.errors import UserError
from basics.paths import Address, AnyPath, as_path, is_remote
from basics.reading import is_file, read_bytes
from basics.remote import file_system, os_errors_only

NAME_LIMIT = 255
"""Bytes that the name of a file may have on nearly all file systems."""
TEMPORARY_SUFFIX = ".tmp"
WORKING_PREFIX = "working-"
"""Prefix of the temporary folders in which files are written before they are whole."""
SEAL = "sha256_of_the_rest"
"""Field of a sealed JSON file: the checksum over all other fields."""
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_+-][A-Za-z0-9_.+-]*")


@contextmanager
def atomic_path(path: AnyPath) -> Iterator[Path]:
    """Provide a temporary local path; its file replaces `path` only if the block ends without an error.

    On a local disk it lies beside `path` and is flushed before it is renamed, so that after a power cut the name holds
    either the old file or the whole new one. An upload to an object store exists only when it is complete.
    """
    with ExitStack() as stack:
        if is_remote(path):
            temporary = Path(stack.enter_context(tempfile.TemporaryDirectory())) / path.name
        else:
            temporary = path.with_name(_temporary_name(path.name))
            stack.callback(temporary.unlink, missing_ok=True)
        yield temporary
        commit(temporary, path)


def _temporary_name(name: str) -> str:
    """Return the name under which a file is written: its own and a suffix, or a checksum where that is too long."""
    longer = name + TEMPORARY_SUFFIX
    return longer if len(os.fsencode(longer)) <= NAME_LIMIT else digest_json(name) + TEMPORARY_SUFFIX


@contextmanager
def working_folder(folder: AnyPath) -> Iterator[Path]:
    """Provide a local folder of the caller's own, from which `commit` moves whole files to `folder`.

    So several processes may make the same files at the same time, and none sees incomplete files of the others.
    """
    beside = None if is_remote(folder) else folder
    with tempfile.TemporaryDirectory(
        prefix=WORKING_PREFIX, suffix=TEMPORARY_SUFFIX, dir=beside, ignore_cleanup_errors=True
    ) as temporary:
        yield Path(temporary)


def commit(temporary: Path, path: AnyPath) -> None:
    """Move a finished local file to its path: flushed to the disk and renamed, or uploaded."""
    if is_remote(path):
        with os_errors_only(path):
            file_system(path).put_file(str(temporary), path.path)
        return
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)


def upload_new(path: UPath, content: bytes) -> None:
    """Write a new object to an object store; of two processes that do so at the same time, one succeeds.

    Raises:
        FileExistsError: the object exists.
        OSError: it cannot be written.
    """
    with os_errors_only(path):
        file_system(path).pipe_file(path.path, content, mode="create")


def remove_files(paths: Sequence[AnyPath]) -> None:
    """Remove those of several files that exist."""
    for path in paths:
        with os_errors_only(path):
            path.unlink(missing_ok=True)


def write_bytes(path: AnyPath, content: bytes) -> None:
    """Write `content` to `path` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: AnyPath, text: str) -> None:
    """Write UTF-8 `text` to `path` atomically."""
    write_bytes(path, text.encode())


def write_texts(folder: Path, texts: Mapping[str, str]) -> None:
    """Write several files of a folder, name -> UTF-8 text: all are on the disk before the first is renamed."""
    with ExitStack() as stack:
        for name, text in texts.items():
            stack.enter_context(atomic_path(folder / name)).write_text(text, encoding="utf-8")


def write_json(path: AnyPath, value: Any) -> None:
    """Write `value` to `path` atomically as `json_text`."""
    write_text(path, json_text(value))


def json_text(value: Any) -> str:
    """Return `value` as indented JSON with sorted keys, so that equal values give equal bytes."""
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def canonical_json(value: Any) -> bytes:
    """Return the canonical JSON of `value`, over which checksums are taken."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest_json(value: Any) -> str:
    """Return the SHA-256 (hex) of the canonical JSON of `value`."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def write_sealed(path: AnyPath, values: Mapping[str, Any]) -> None:
    """Write `values` as `write_json` does, with a checksum over them that reveals any later change."""
    write_json(path, sealed(values))


def sealed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return `values` with a field that holds a checksum over them."""
    return {**values, SEAL: digest_json(values)}


def read_sealed(path: AnyPath) -> dict[str, Any]:
    """Read what `write_sealed` wrote.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not JSON, or its content does not match its checksum.
    """
    return unsealed(json.loads(read_bytes(path)))


def unsealed(values: Any) -> dict[str, Any]:
    """Return a sealed JSON value without its checksum.

    Raises:
        ValueError: its content does not match its checksum.
    """
    content = {name: value for name, value in values.items() if name != SEAL} if isinstance(values, dict) else {}
    if not content or values.get(SEAL) != digest_json(content):
        raise ValueError("its content does not match its checksum")
    return content


def digest_file(path: AnyPath, algorithm: str = "sha256") -> str:
    """Return the checksum (hex) of a file, read in blocks."""
    with os_errors_only(path), path.open("rb") as file:
        return hashlib.file_digest(cast("io.BufferedIOBase", file), algorithm).hexdigest()


def is_plain_name(text: object) -> bool:
    """Return whether something is a file name that is safe from any origin: no folder, no pattern, not hidden."""
    return isinstance(text, str) and _PLAIN_NAME.fullmatch(text) is not None


def require_apart(source: Address | None, folder: AnyPath) -> None:
    """Refuse an output folder in the source or around it: writing would change the source, --overwrite remove it.

    Raises:
        UserError: see above.
    """
    if source is None:
        return
    images, target = as_path(source), folder
    if is_remote(images) != is_remote(target) or not (is_remote(images) or images.exists()):
        return
    images, target = images.resolve(), target.resolve()
    if images == target or images in target.parents or target in images.parents:
        raise UserError(f"The output {folder} and the source {images} lie within each other; give another --out.")


def require_writable_folder(path: AnyPath, advice: str = "give another --out") -> None:
    """Create the folder `path` if need be, and prove that files can be written in it.

    Raises:
        UserError: it is a file, or it cannot be created or written; the message ends in `advice`.
    """
    try:
        if is_file(path):
            raise UserError(f"The output {path} is a file, not a folder; {advice}.")
        with os_errors_only(path):
            _try_to_write(path)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"The output folder {path} cannot be written ({reason}); {advice}.") from error


def _try_to_write(path: AnyPath) -> None:
    if is_remote(path):
        # An object store has no folders: an object shows that others can be made.
        trial = path / f"{WORKING_PREFIX}{secrets.token_hex(8)}{TEMPORARY_SUFFIX}"
        trial.write_bytes(b"")
        trial.unlink()
        return
    path.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=path):
        pass
