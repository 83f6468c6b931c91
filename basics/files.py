"""Files that are whole or absent, and their checksums."""

import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from basics.errors import UserError

TEMPORARY_SUFFIX = ".tmp"
SEAL = "sha256_of_the_rest"
"""Field of a sealed JSON file: the checksum over all others."""


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Lend a temporary path beside `path`; it takes the place of `path` only if the block ends well.

    The content is flushed to the disk before the rename, so that after a power cut the name holds either
    the old file or the whole new one.
    """
    temporary = path.with_name(path.name + TEMPORARY_SUFFIX)
    try:
        yield temporary
        commit(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def commit(temporary: Path, path: Path) -> None:
    """Flush a finished temporary file to the disk and give it its name."""
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 `text` to `path` atomically."""
    write_bytes(path, text.encode())


def write_texts(folder: Path, texts: Mapping[str, str]) -> None:
    """Write several files of a folder, name -> UTF-8 text: every one is on the disk before the first takes its name."""
    with ExitStack() as stack:
        for name, text in texts.items():
            stack.enter_context(atomic_path(folder / name)).write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` to `path` atomically as indented JSON with sorted keys, so equal values give equal bytes."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def canonical_json(value: Any) -> bytes:
    """Return the one JSON text of `value` that checksums are taken over."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest_json(value: Any) -> str:
    """Return the SHA-256 (hex) of the canonical JSON of `value`."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def write_sealed(path: Path, values: Mapping[str, Any]) -> None:
    """Write `values` as `write_json` does, with a checksum over them that betrays any later change."""
    write_json(path, {**values, SEAL: digest_json(values)})


def read_sealed(path: Path) -> dict[str, Any]:
    """Read what `write_sealed` wrote.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no JSON, or not as it was written.
    """
    return unsealed(json.loads(path.read_text()))


def unsealed(values: Any) -> dict[str, Any]:
    """Return the content of a sealed JSON value.

    Raises:
        ValueError: it is not as it was written.
    """
    content = {name: value for name, value in values.items() if name != SEAL} if isinstance(values, dict) else {}
    if not content or values.get(SEAL) != digest_json(content):
        raise ValueError("its content does not match its checksum")
    return content


def digest_file(path: Path, algorithm: str = "sha256") -> str:
    """Return the checksum (hex) of a file, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder for one run; the kernel lets go of it however that run ends.

    Raises:
        UserError: another run holds it.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        raise UserError(f"Another run is writing to {folder}; wait for it, or give another --out.") from error
    try:
        yield
    finally:
        os.close(handle)


def require_apart(source: str | None, folder: Path) -> None:
    """Refuse an output folder in the source or around it: writing would change the source, --overwrite remove it.

    Raises:
        UserError: see above.
    """
    if source is None or not Path(source).exists():
        return
    images, target = Path(source).resolve(), folder.resolve()
    if images == target or images in target.parents or target in images.parents:
        raise UserError(f"The output {folder} and the source {images} lie within each other; give another --out.")


def require_writable_folder(path: Path, mend: str = "give another with --out") -> None:
    """Create the folder `path` if need be, and prove that files can be written in it.

    Raises:
        UserError: it is a file, or it cannot be created or written; the sentence ends in `mend`.
    """
    if path.exists() and not path.is_dir():
        raise UserError(f"The output {path} is a file, not a folder; {mend}.")
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise UserError(f"The output folder {path} cannot be written ({error.strerror}); {mend}.") from error
