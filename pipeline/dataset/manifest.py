"""The files around the shards: manifest, what other readers want, the data-set card."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from basics.errors import UserError
from basics.files import (
    digest_file,
    is_plain_name,
    json_text,
    sealed,
    unsealed,
    upload_new,
    write_json,
    write_sealed,
    write_text,
)
from basics.paths import AnyPath, is_remote
from basics.reading import read_bytes
from pipeline.config import GenerationConfig
from pipeline.dataset.layout import CARD, MANIFEST, TIMM_INFO, WIDS_INDEX, ShardStats
from pipeline.job import FORMAT_VERSION, Job, Product
from pipeline.replay import NOT_ASKED

FORMAT = "advbn-gen data set"
READER_FILES = (TIMM_INFO, WIDS_INDEX, CARD)

_WELL_KNOWN_SPLITS = {"val": "validation"}

_CARD = """---
pretty_name: {name}
task_categories:
- image-classification
configs:
- config_name: default
  data_files:
  - split: {split}
    path: "{name}-{short}-*.tar"
---

# {name}

{samples} images, {what} with the {encoder} encoder (Shu et al., *Encoding Robustness to Image Style via Adversarial
Feature Perturbations*, appendix B), in {shards} WebDataset shards made by advbn-gen {version}.

Each sample has `<key>.png`, `<key>.cls` (class index) and `<key>.json` (label, source, batch, predictions of the
attacked classifier, losses). Samples are **sorted by class**: shuffle before training on them.

```python
import webdataset as wds

data = wds.WebDataset("{name}-{short}-{{{first}..{last}}}.tar", shardshuffle=False).decode("pil").to_tuple("png", "cls")
```

| attacked classifier | originals | reconstructed | these images |
|---|---|---|---|
| {classifier}, top-1 | {clean:.2%} | {reconstructed:.2%} | {adversarial} |

eps {eps}, {steps} steps of {step_size}{scaled}, batches of {batch_size}, {image_size} px.
`manifest.json` tells the rest.
"""


@dataclass(frozen=True)
class Manifest:
    """A data set's `manifest.json`."""

    values: dict[str, Any]

    @property
    def config(self) -> GenerationConfig:
        """The run that made it."""
        threads = self.values["identity"]["arithmetic"]["threads"]
        return GenerationConfig.from_json({**self.values["config"], "threads": threads})

    @property
    def complete(self) -> bool:
        """Whether every shard is there."""
        return bool(self.values["complete"])

    @property
    def shards(self) -> list[dict[str, Any]]:
        """The finished shards: `shard`, `file`, `samples`, `bytes`, `sha256`."""
        return list(self.values["shards"])

    @property
    def recorded(self) -> dict[int, str]:
        """SHA-256 of every shard that was ever finished, by its number."""
        lost = {int(shard): sha256 for shard, sha256 in self.values["lost"].items()}
        return lost | {entry["shard"]: entry["sha256"] for entry in self.shards}

    @property
    def product(self) -> tuple[str, bool]:
        """The data set's name, and whether it is the perturbed one of its run."""
        return self.values["name"], self.values["perturbed"]


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """What earlier calls of a run left in its manifest."""

    checksums: Mapping[int, str] = field(default_factory=dict)
    """SHA-256 of every shard that was ever finished, also of those that are lost now."""
    addresses: Mapping[str, Any] = field(default_factory=dict)
    """Manifest entries that say how and from what it was made: `config`, `source` and `rendered`."""


_NO_SUCH_FILE = (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError)
"""How file systems say that there is no such file; some stores do so only to those who may list the folder."""


def is_data_set(folder: AnyPath) -> bool:
    """Whether a folder holds a data set of this program, whole or damaged: whether its manifest says so.

    Raises:
        UserError: the folder is on another machine that does not answer.
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
        UserError: there is none, or it is damaged, foreign or newer.
    """
    path = folder / MANIFEST
    return read_manifest_file(path, f"The folder {folder} is not a data set of this program: it has no {MANIFEST}.")


def read_manifest_file(path: AnyPath, absent: str) -> Manifest:
    """Read a manifest wherever it lies.

    Args:
        path: the file.
        absent: what to say if there is none.

    Raises:
        UserError: there is none, it cannot be read, or it is damaged, foreign or newer.
    """
    try:
        return load_manifest(path, absent)
    except OSError as error:
        raise UserError(f"The manifest {path} cannot be read ({error.strerror or error}); check it.") from error


def load_manifest(path: AnyPath, absent: str) -> Manifest:
    """Do as `read_manifest_file`, but tell a manifest of which nothing is known from one that is none.

    Raises:
        OSError: it cannot be read.
        UserError: there is none, or it is damaged, foreign or newer.
    """
    try:
        values = json.loads(read_bytes(path))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(absent) from error
    except ValueError as error:
        raise UserError(f"The manifest {path} is damaged ({error}); run the command that made it again.") from error
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise UserError(f"The file {path} is not a manifest of this program.")
    if values.get("format_version", 0) > FORMAT_VERSION:
        raise UserError(f"The data set of {path} was written by a newer advbn-gen; update this one.")
    try:
        manifest = Manifest(unsealed(values))
    except ValueError as error:
        raise UserError(f"The manifest {path} is damaged ({error}); run the command that made it again.") from error
    if not is_plain_name(values.get("name")):
        raise UserError(f"The manifest {path} gives its data set the name {values.get('name')!r}, which is not safe.")
    return manifest


def write_manifest(
    job: Job,
    product: Product,
    stats: Sequence[ShardStats],
    ledger_sha256: str,
    recorded: Recorded | None,
) -> None:
    """Write `manifest.json`: complete if every shard is in `stats`; the files for readers must then be there.

    Args:
        job: the run.
        product: the data set.
        stats: its finished shards.
        ledger_sha256: checksum of the whole ledger, empty if there is none yet.
        recorded: what was there before: shards that are lost now must come back the same, and addresses that are given
            stand for the job's own. None: this is the first, and claims the folder on an object store.

    Raises:
        FileExistsError: there is one, although this should be the first.
    """
    known = recorded or Recorded()
    lost = {str(shard): sha for shard, sha in known.checksums.items() if shard not in {mark.shard for mark in stats}}
    classes, whole = job.source.classes, len(stats) == job.plan.shards
    values = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "name": product.name,
        "perturbed": product.perturbed,
        "complete": whole,
        "samples": job.plan.images,
        "batches": job.plan.batches,
        "fingerprint": job.fingerprint_of(product),
        "identity": job.identity_of(product),
        "config": job.config.to_json(),
        "source": job.source.address,
        "rendered": job.replay and {name: getattr(job.replay, name) for name in ("ledger", "ledger_sha256", "scale")},
        "classes": {"imagenet": classes.imagenet, "names": list(classes.names)},
        "shards": [
            {name: getattr(shard, name) for name in ("shard", "file", "samples", "bytes", "sha256")} for shard in stats
        ],
        "lost": lost,
        "ledger_sha256": ledger_sha256,
        "files": {name: digest_file(product.folder / name) for name in READER_FILES if whole},
        "top1": accuracies(stats),
        **known.addresses,
    }
    path = product.folder / MANIFEST
    if recorded is None and is_remote(path):
        upload_new(path, json_text(sealed(values)).encode())
        return
    write_sealed(path, values)


def accuracies(stats: Sequence[ShardStats]) -> dict[str, float]:
    """Return the attacked classifier's top-1 (0..1) on originals, reconstructions and the data set's images.

    What it was not asked is left out.
    """
    samples = sum(shard.samples for shard in stats)
    right = {
        name: [getattr(shard, f"{name}_right") for shard in stats] for name in ("clean", "reconstructed", "adversarial")
    }
    return {
        name: sum(counts) / samples if samples else 0.0 for name, counts in right.items() if NOT_ASKED not in counts
    }


def write_reader_files(job: Job, product: Product, stats: Sequence[ShardStats]) -> None:
    """Write what timm, wids and Hugging Face datasets read, and people: `_info.json`, `wids.json`, `README.md`."""
    split = _WELL_KNOWN_SPLITS.get(job.config.split, job.config.split)
    info = {
        "name": f"{product.name}-{job.config.split}",
        "num_samples": job.plan.images,
        "filenames": [shard.file for shard in stats],
        "shard_lengths": [shard.samples for shard in stats],
    }
    write_json(product.folder / TIMM_INFO, {"splits": {split: info}})
    shardlist = [
        {"url": shard.file, "md5sum": shard.md5, "nsamples": shard.samples, "filesize": shard.bytes} for shard in stats
    ]
    index = {
        "__kind__": "wids-shard-index-v1",
        "wids_version": 1,
        "name": product.name,
        "shardlist": shardlist,
    }
    write_json(product.folder / WIDS_INDEX, index)
    write_text(product.folder / CARD, _card(job, product, stats, split))


def _card(job: Job, product: Product, stats: Sequence[ShardStats], split: str) -> str:
    config, top1 = job.config, accuracies(stats)
    return _CARD.format(
        name=product.name,
        split=split,
        short=config.split,
        samples=job.plan.images,
        what="perturbed by AdvBN" if product.perturbed else "reconstructed without perturbation",
        encoder=config.encoder,
        shards=len(stats),
        version=job.identity["software"]["advbn-gen"],
        first=f"{0:06d}",
        last=f"{job.plan.shards - 1:06d}",
        classifier=job.identity["classifier"]["name"],
        clean=top1["clean"],
        reconstructed=top1["reconstructed"],
        adversarial=f"{top1['adversarial']:.2%}" if "adversarial" in top1 else "not asked",
        scaled="" if job.scale == 1 else f", the shifts scaled by {job.scale:g} afterwards",
        eps=config.attack.eps,
        steps=config.attack.steps if product.perturbed else 0,
        step_size=config.attack.step_size,
        batch_size=config.batch_size,
        image_size=config.image_size,
    )
