"""A labelled data set that models are scored on: any source, or a data set that the main job wrote."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from basics.errors import UserError
from basics.files import digest_json
from basics.paths import Address, AnyPath, as_path
from basics.reading import is_folder
from downstream.cue_conflict import texture_labels
from pipeline.dataset.checks import checksum_problems
from pipeline.dataset.manifest import Manifest, is_data_set, read_manifest
from sources.base import ImageRecord, Source
from sources.content import FileState, state_checksum
from sources.decode import View
from sources.keys import sample_keys
from sources.opening import open_source
from sources.sixteen import is_sixteen

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")


@dataclass(frozen=True, kw_only=True)
class TestSet:
    """Labelled images with their sample keys."""

    __test__ = False  # not a test of pytest's

    name: str
    """Name in tables."""
    source: Source
    """Where its images are read from."""
    records: Sequence[ImageRecord]
    """Names and labels of the images, in order."""
    keys: Sequence[str]
    """Sample key of each image: the same for an original and for its reconstruction and perturbed versions."""
    fingerprint: str
    """Fingerprint of the run that wrote it; for another source, the checksum of its names and labels."""
    manifest: Manifest | None
    """Manifest of a data set that the main job wrote; None for another source."""
    stored_side: int | None = None
    """Short side of images that are stored ready to be cropped; None for images of any size."""
    whole_classes: bool = False
    """Whether the classes of all images count as occurring, also if only some of the images are scored."""
    suite: str = ""
    """Test set of the paper that it is or belongs to (see `downstream.suites`); empty if that is unknown."""

    @property
    def own_manifest(self) -> Manifest:
        """The manifest of a data set that the main job wrote.

        Raises:
            ValueError: it is another source.
        """
        if self.manifest is None:
            raise ValueError(f"{self.source.address} is no data set of this program")
        return self.manifest

    @property
    def folder(self) -> AnyPath:
        """Folder of the shards and their manifest, of a data set that the main job wrote."""
        return _folder_of(self.source.address)

    @property
    def labels(self) -> list[int]:
        """True class of each image."""
        return [record.label for record in self.records]

    @property
    def present(self) -> list[int]:
        """The classes that occur, sorted; where textures are decided between, those of the whole set."""
        whole = self.whole_classes or self.texture_N is not None
        return sorted({record.label for record in (self.source.records if whole else self.records)})

    @property
    def sixteen(self) -> bool:
        """Whether its classes are the 16 of cue conflict (see `sources.sixteen`)."""
        return is_sixteen(self.source.classes.names)

    @cached_property
    def texture_N(self) -> NDArray[np.int32] | None:
        """Class of each image's texture, if the names of all images say one (see `downstream.cue_conflict`)."""
        return texture_labels(self.records, self.source.classes.names)

    def view(self, own: View) -> View:
        """Return how images are prepared for a network whose usual preparation is `own`.

        Images that are stored ready to be cropped are not resized (published for ImageNet-AdvBN, ImageNet-C and
        Stylized ImageNet), if their side lies between what the network crops and what it would resize to, as the
        published 256 and 224 px do.
        """
        if self.stored_side is None or own.resize is None:
            return own
        return replace(own, resize=None) if own.crop <= self.stored_side <= own.resize else own

    def in_order(self, keys: Sequence[str]) -> "TestSet":
        """Return the images with these keys, in the order of the keys.

        Raises:
            KeyError: the data set does not have one of them.
        """
        index_of = {key: index for index, key in enumerate(self.keys)}
        chosen = [index_of[key] for key in keys]
        return replace(self, records=[self.records[index] for index in chosen], keys=list(keys))

    @cached_property
    def samples_sha256(self) -> str:
        """Checksum over the keys in order: which samples these are."""
        return digest_json(list(self.keys))

    @cached_property
    def content(self) -> str:
        """State checksum of its images (see `sources.content`): of shards or of files; empty if it has none."""
        if self.manifest is not None:
            return state_checksum(FileState(shard["bytes"], tag=shard["sha256"]) for shard in self.manifest.shards)
        return "".join(self.source.state_checksums(self.records))

    def metadata(self) -> dict[str, Any]:
        """Return the fields of results that describe it."""
        of_suite = {"suite": self.suite, "imagenet": self.source.classes.imagenet} if self.suite else {}
        return {
            **of_suite,
            "data": self.name,
            "data_address": self.source.address,
            "data_fingerprint": self.fingerprint,
            "samples": len(self.keys),
            "samples_there": len(self.source.records),
            "samples_sha256": self.samples_sha256,
            "classes": self.source.classes.count,
        }


def open_test_set(name: str, address: str, *, labels: Address | None = None, limit: int | None = None) -> TestSet:
    """Open a data set to score models on; one that the main job wrote must be complete, with its recorded checksums.

    Args:
        name: its name in tables.
        address: whatever the main job reads, or a folder (or brace pattern) of shards that it wrote.
        labels: label list or devkit of a flat ILSVRC2012 folder.
        limit: only this many images, from the first on.

    Raises:
        UserError: it cannot be read, is not finished, or is damaged.
    """
    if not _NAME.fullmatch(name):
        raise UserError(f"The data set is called {name!r}; give a name of letters, digits, '.', '-' and '_'.")
    return open_named(name, address, labels=labels, limit=limit)


def open_named(
    name: str, address: str, *, labels: Address | None = None, limit: int | None = None, split: str = "val"
) -> TestSet:
    """Open a data set as `open_test_set` does, under a name that no user chose.

    `split` is used for a source that has several; a data set that the main job wrote has only one, which is used.
    """
    if limit is not None and limit < 1:
        raise UserError(f"--limit is {limit}; give 1 or more.")
    manifest = _checked_manifest(_folder_of(address))
    source = open_source(address, labels=labels, split=manifest.split if manifest else split)
    keys = [Path(record.name).stem for record in source.records] if manifest else sample_keys(source.records)
    if manifest and len(keys) != manifest.values["samples"]:
        raise UserError(
            f"{address} holds {len(keys)} samples, but its manifest says {manifest.values['samples']}; "
            "`advbn-gen verify` lists what is wrong."
        )
    return TestSet(
        name=name,
        source=source,
        records=source.records[:limit],
        keys=keys[:limit],
        fingerprint=manifest.values["fingerprint"] if manifest else source.digest(),
        manifest=manifest,
        stored_side=manifest.image_size if manifest else None,
    )


def _checked_manifest(folder: AnyPath) -> Manifest | None:
    """Return the manifest of a data set that the main job wrote, after comparing every shard; None for other sources.

    Raises:
        UserError: it is damaged, or not finished.
    """
    if not is_data_set(folder):
        return None
    manifest = read_manifest(folder)
    if not manifest.complete:
        raise UserError(f"The data set {folder} is not finished; give the command that makes it again.")
    try:
        problems = checksum_problems(folder, manifest)
    except OSError as error:
        raise UserError(f"The data set {folder} cannot be read ({error}); check it.") from error
    if problems:
        raise UserError(
            f"The data set {folder} is damaged ({problems[0].text} {len(problems)} in all); "
            "mend it with `advbn-gen verify --repair`, or fetch it again."
        )
    return manifest


def _folder_of(address: str) -> AnyPath:
    """Return the folder that an address names, or that of the shards that it names.

    Raises:
        UserError: it lies on another machine that cannot be reached.
    """
    path = as_path(address)
    try:
        return path if is_folder(path) else path.parent
    except OSError as error:
        raise UserError(f"{address} cannot be reached ({error.strerror or error}); check it.") from error
