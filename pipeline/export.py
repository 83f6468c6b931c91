"""Unpacking shards into class folders."""

import itertools
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

from basics.errors import UserError, WorkError
from basics.files import NAME_LIMIT, digest_file, require_writable_folder, write_bytes
from basics.paths import AnyPath
from basics.progress import progress
from basics.reading import is_file, local_copy
from pipeline.dataset.manifest import Manifest, read_manifest
from pipeline.dataset.shard_file import read_shard
from sources.tar.scanning import scan_tars


def export(folder: AnyPath, out: Path) -> int:
    """Write every image of a data set to `out/<class>/<key>.png`; return the number of images.

    Existing files with the same content are not written again, so an interrupted export can be resumed.

    Raises:
        UserError: the data set is not finished, a shard is missing, a name is too long for a file, or a file with
            other content exists.
        WorkError: a shard is damaged.
        OSError: a shard cannot be read.
    """
    manifest = read_manifest(folder)
    if not manifest.complete:
        raise UserError(f"The data set {folder} is not finished; give the command that started it again.")
    for entry in manifest.shards:
        if not is_file(folder / entry["file"]):
            raise UserError(
                f"The shard {entry['file']} of {folder} is missing; repair it with `advbn-gen verify --repair`."
            )
    _require_undamaged(folder, manifest)
    _require_short_names(folder, manifest, out)
    require_writable_folder(out)
    with progress("export", manifest.values["samples"], "images") as advance:
        for entry in manifest.shards:
            with local_copy(folder / entry["file"]) as shard:
                for path, content in _images(shard):
                    _write_image(out / path, content)
                    advance()
    return int(manifest.values["samples"])


def _require_undamaged(folder: AnyPath, manifest: Manifest) -> None:
    for entry in manifest.shards:
        if digest_file(folder / entry["file"]) != entry["sha256"]:
            raise WorkError(
                f"The shard {entry['file']} is damaged (checksum); repair it with `advbn-gen verify --repair`."
            )


def _require_short_names(folder: AnyPath, manifest: Manifest, out: Path) -> None:
    """Refuse, before anything is written, a class or key that is too long for the name of a folder or file."""
    existing = next(path for path in (out, *out.absolute().parents) if path.exists())
    limit = min(NAME_LIMIT, os.pathconf(existing, "PC_NAME_MAX"))
    shards = [folder / entry["file"] for entry in manifest.shards]
    files = (member.name for _, _, member in scan_tars(shards) if member.name.endswith(".png"))
    for name in itertools.chain(manifest.values["classes"]["names"], files):
        if len(os.fsencode(name)) > limit:
            raise UserError(
                f"The name {name} in the data set {folder} is longer than the {limit} bytes that {out} allows for a "
                f"file; read the shards in place, as docs/shards.md shows."
            )


def _images(shard: Path) -> Iterator[tuple[str, bytes]]:
    try:
        for sample in read_shard(shard):
            yield f"{_plain(sample.metadata['wnid'])}/{_plain(sample.key)}.png", sample.members["png"]
    except (tarfile.TarError, EOFError, KeyError, ValueError) as error:
        raise WorkError(
            f"The shard {shard} is damaged ({error}); repair it with `advbn-gen verify --repair`."
        ) from error


def _plain(name: str) -> str:
    """Refuse a name that would lead out of the folder: a data set may come from anywhere."""
    if name in {"", ".", ".."} or Path(name).name != name:
        raise ValueError(f"the name {name!r} is not a plain one")
    return name


def _write_image(path: Path, content: bytes) -> None:
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        write_bytes(path, content)
    elif path.read_bytes() != content:
        raise UserError(f"The file {path} has other content and is not replaced; give another output folder.")
