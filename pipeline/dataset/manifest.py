"""The manifest of a data set: what it is, how it was made, and the checksums of its files."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from basics.errors import UserError
from basics.files import (
    digest_file,
    digest_json,
    is_plain_name,
    json_text,
    sealed,
    unsealed,
    upload_new,
    write_sealed,
)
from basics.paths import AnyPath, is_remote
from basics.reading import read_bytes
from basics.software import FORMAT_VERSION
from pipeline.dataset.layout import MANIFEST, READER_FILES, ShardMark, map_shards, read_mark
from pipeline.dataset.plan import Plan
from pipeline.dataset.shard_file import NO_PREDICTION

FORMAT = "advbn-gen data set"


@dataclass(frozen=True, kw_only=True)
class DatasetDescription:
    """A data set that a run writes: its folder, and everything in its manifest and card beside the finished shards."""

    folder: AnyPath
    """Folder that it is written to."""
    name: str
    """Name of the data set, with which its files' names begin."""
    perturbed: bool
    """True for images perturbed by AdvBN, False for reconstructions."""
    split: str
    """Name of the split, as in the files' names."""
    plan: Plan
    """Which image is in which batch of which shard."""
    identity: Mapping[str, Any]
    """Everything that the bytes of the shards depend on."""
    config: Mapping[str, Any]
    """Settings with which the run can be repeated."""
    source: str
    """Address of the original images."""
    rendered: Mapping[str, Any] | None
    """The ledger that it is rendered from (`ledger`, `ledger_sha256`, `scale`); None for an ascent."""
    classes: Sequence[str]
    """Class name at each label."""
    imagenet: bool
    """Whether the labels are the 1,000 ImageNet-1k indices."""

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the identity."""
        return digest_json(self.identity)

    @property
    def scale(self) -> float:
        """Scale of the perturbations: 1 unless a ledger was rendered with another."""
        return float(self.identity.get("scale", 1))


@dataclass(frozen=True)
class Manifest:
    """A data set's `manifest.json` as it was read."""

    values: dict[str, Any]
    """The entries of the file."""

    @property
    def name(self) -> str:
        """Name of the data set."""
        return str(self.values["name"])

    @property
    def perturbed(self) -> bool:
        """Whether the images are perturbed, and not only reconstructed."""
        return bool(self.values["perturbed"])

    @property
    def split(self) -> str:
        """Name of the split, as in the files' names."""
        return str(self.values["config"]["split"])

    @property
    def image_size(self) -> int:
        """Side of the square images, in pixels."""
        return int(self.values["config"]["image_size"])

    @property
    def plan(self) -> Plan:
        """Which image is in which batch of which shard."""
        config = self.values["config"]
        return Plan(
            images=self.values["samples"],
            batch_size=config["batch_size"],
            batches_per_shard=config["batches_per_shard"],
        )

    @property
    def fingerprint(self) -> str:
        """Checksum of the identity of the run that made it."""
        return str(self.values["fingerprint"])

    @property
    def complete(self) -> bool:
        """Whether every shard was finished when it was written."""
        return bool(self.values["complete"])

    @property
    def shards(self) -> list[dict[str, Any]]:
        """The finished shards: `shard`, `file`, `samples`, `bytes`, `sha256`."""
        return list(self.values["shards"])

    @property
    def checksums(self) -> dict[int, str]:
        """SHA-256 of every shard that was ever finished, by its number."""
        lost = {int(shard): sha256 for shard, sha256 in self.values["lost"].items()}
        return lost | {entry["shard"]: entry["sha256"] for entry in self.shards}


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """What earlier calls of a run have left in its manifest."""

    checksums: Mapping[int, str] = field(default_factory=dict)
    """SHA-256 of every shard that was ever finished, including those that have been lost since."""
    origin: Mapping[str, Any] = field(default_factory=dict)
    """Entries that say how and from what it was made: `config`, `source` and `rendered`."""


_NO_SUCH_FILE = (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError)
"""How file systems say that there is no such file; some stores do so only to those who may list the folder."""


def is_data_set(folder: AnyPath) -> bool:
    """Whether a folder holds a data set of this program, complete or damaged, as far as its manifest says.

    Raises:
        UserError: the folder is on a remote store that does not respond.
    """
    try:
        values = json.loads(read_bytes(folder / MANIFEST))
    except (OSError, ValueError) as error:
        if is_remote(folder) and isinstance(error, OSError) and not isinstance(error, _NO_SUCH_FILE):
            raise UserError(f"{folder} cannot be reached ({error}); check it.") from error
        return False
    return isinstance(values, dict) and values.get("format") == FORMAT


def read_manifest(folder: AnyPath) -> Manifest:
    """Read the manifest of a data-set folder.

    Raises:
        UserError: there is none, or it is damaged, another program's, or of a newer version.
    """
    path = folder / MANIFEST
    return read_manifest_file(path, f"The folder {folder} is not a data set of this program: it has no {MANIFEST}.")


def read_manifest_file(path: AnyPath, absent: str) -> Manifest:
    """Read a manifest at any path.

    Args:
        path: the file.
        absent: message of the error if there is none.

    Raises:
        UserError: there is none, it cannot be read, or it is damaged, another program's, or of a newer version.
    """
    try:
        return load_manifest(path, absent)
    except OSError as error:
        raise UserError(f"The manifest {path} cannot be read ({error.strerror or error}); check it.") from error


def load_manifest(path: AnyPath, absent: str) -> Manifest:
    """Read a manifest as `read_manifest_file` does, but distinguish one that cannot be read from a damaged one.

    Raises:
        OSError: it cannot be read.
        UserError: there is none, or it is damaged, another program's, or of a newer version.
    """
    try:
        values = json.loads(read_bytes(path))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(absent) from error
    except ValueError as error:
        raise _damaged(path, error) from error
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise UserError(f"The file {path} is not a manifest of this program; give a data set's {MANIFEST}.")
    if values.get("format_version", 0) > FORMAT_VERSION:
        raise UserError(f"The data set of {path} was written by a newer advbn-gen; update this one.")
    try:
        manifest = Manifest(unsealed(values))
    except ValueError as error:
        raise _damaged(path, error) from error
    # Both become part of file names, and a manifest may come from anywhere.
    config = values.get("config")
    split = config.get("split") if isinstance(config, dict) else None
    for entry, text in (("name", values.get("name")), ("split", split)):
        if not is_plain_name(text):
            raise UserError(
                f"The manifest {path} gives its data set the {entry} {text!r}, which is not safe; fetch it again."
            )
    return manifest


def _damaged(path: AnyPath, error: ValueError) -> UserError:
    return UserError(
        f"The manifest {path} is damaged ({error}); run the command that made it again, or fetch it again."
    )


def read_intact_manifest(folder: AnyPath) -> Manifest | None:
    """Return the manifest of a folder, or None if there is none or it is damaged.

    Raises:
        OSError: it cannot be read, which says nothing about its content.
    """
    try:
        return load_manifest(folder / MANIFEST, "")
    except UserError:
        return None


def read_recorded(folder: AnyPath) -> Recorded:
    """Return what earlier calls have left in a folder's manifest; nothing if it is damaged.

    Raises:
        OSError: it cannot be read, which says nothing about its content.
    """
    manifest = read_intact_manifest(folder)
    if manifest is None:
        return Recorded()
    origin = {name: manifest.values.get(name) for name in ("config", "source", "rendered")}
    return Recorded(checksums=manifest.checksums, origin=origin)


def marked_shards(dataset: DatasetDescription) -> list[ShardMark]:
    """Return the marks of a data set's finished shards.

    Raises:
        OSError: a mark cannot be read, which says nothing about its shard.
    """
    found = map_shards(dataset.folder, lambda shard: read_mark(dataset.folder, shard), range(dataset.plan.shards))
    return [mark for mark in found if mark is not None and mark.fingerprint == dataset.fingerprint]


def write_manifest(
    dataset: DatasetDescription,
    marks: Sequence[ShardMark],
    ledger_sha256: str,
    recorded: Recorded | None,
) -> None:
    """Write `manifest.json`: complete if every shard is in `stats`; the files for readers must then exist.

    Args:
        dataset: the data set.
        marks: marks of its finished shards.
        ledger_sha256: checksum of the whole ledger, empty if there is none yet.
        recorded: what the manifest held before: shards that are lost now must be made with the same bytes again, and
            its origin takes precedence over that of `dataset`. None if this is the first manifest, which claims the
            folder on an object store.

    Raises:
        FileExistsError: there is a manifest, although this should be the first.
    """
    known = recorded or Recorded()
    lost = {str(shard): sha for shard, sha in known.checksums.items() if shard not in {mark.shard for mark in marks}}
    complete = len(marks) == dataset.plan.shards
    values = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "name": dataset.name,
        "perturbed": dataset.perturbed,
        "complete": complete,
        "samples": dataset.plan.images,
        "batches": dataset.plan.batches,
        "fingerprint": dataset.fingerprint,
        "identity": dataset.identity,
        "config": dataset.config,
        "source": dataset.source,
        "rendered": dataset.rendered,
        "classes": {"imagenet": dataset.imagenet, "names": list(dataset.classes)},
        "shards": [
            {name: getattr(shard, name) for name in ("shard", "file", "samples", "bytes", "sha256")} for shard in marks
        ],
        "lost": lost,
        "ledger_sha256": ledger_sha256,
        "files": {name: digest_file(dataset.folder / name) for name in READER_FILES if complete},
        "top1": accuracies(marks),
        **known.origin,
    }
    path = dataset.folder / MANIFEST
    if recorded is None and is_remote(path):
        upload_new(path, json_text(sealed(values)).encode())
        return
    write_sealed(path, values)


def accuracies(marks: Sequence[ShardMark]) -> dict[str, float]:
    """Return the attacked classifier's top-1 (0..1) on originals, reconstructions and the data set's images.

    Images for which it made no prediction are left out.
    """
    samples = sum(shard.samples for shard in marks)
    correct = {
        name: [getattr(shard, f"{name}_right") for shard in marks] for name in ("clean", "reconstructed", "adversarial")
    }
    return {
        name: sum(counts) / samples if samples else 0.0
        for name, counts in correct.items()
        if NO_PREDICTION not in counts
    }
