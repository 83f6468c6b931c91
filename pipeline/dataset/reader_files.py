"""The files beside the shards for other readers: timm, wids, Hugging Face datasets, and people."""

from collections.abc import Sequence

from basics.files import write_json, write_text
from pipeline.dataset.layout import CARD, TIMM_INFO, WIDS_INDEX, ShardMark
from pipeline.dataset.manifest import DatasetDescription, accuracies

_WELL_KNOWN_SPLITS = {"val": "validation"}

# Its checksum is in the manifest: another wording would change the bytes of data sets that are made again.
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


def write_reader_files(dataset: DatasetDescription, marks: Sequence[ShardMark]) -> None:
    """Write what timm, wids and Hugging Face datasets read, and people: `_info.json`, `wids.json`, `README.md`."""
    split = _WELL_KNOWN_SPLITS.get(dataset.split, dataset.split)
    info = {
        "name": f"{dataset.name}-{dataset.split}",
        "num_samples": dataset.plan.images,
        "filenames": [shard.file for shard in marks],
        "shard_lengths": [shard.samples for shard in marks],
    }
    write_json(dataset.folder / TIMM_INFO, {"splits": {split: info}})
    shardlist = [
        {"url": shard.file, "md5sum": shard.md5, "nsamples": shard.samples, "filesize": shard.bytes} for shard in marks
    ]
    index = {
        "__kind__": "wids-shard-index-v1",
        "wids_version": 1,
        "name": dataset.name,
        "shardlist": shardlist,
    }
    write_json(dataset.folder / WIDS_INDEX, index)
    write_text(dataset.folder / CARD, _card(dataset, marks, split))


def _card(dataset: DatasetDescription, marks: Sequence[ShardMark], split: str) -> str:
    config, identity, top1 = dataset.config, dataset.identity, accuracies(marks)
    return _CARD.format(
        name=dataset.name,
        split=split,
        short=dataset.split,
        samples=dataset.plan.images,
        what="perturbed by AdvBN" if dataset.perturbed else "reconstructed without perturbation",
        encoder=config["encoder"],
        shards=len(marks),
        version=identity["software"]["advbn-gen"],
        first=f"{0:06d}",
        last=f"{dataset.plan.shards - 1:06d}",
        classifier=identity["classifier"]["name"],
        clean=top1["clean"],
        reconstructed=top1["reconstructed"],
        adversarial=f"{top1['adversarial']:.2%}" if "adversarial" in top1 else "not asked",
        scaled="" if dataset.scale == 1 else f", the shifts scaled by {dataset.scale:g} afterwards",
        eps=config["attack"]["eps"],
        steps=config["attack"]["steps"] if dataset.perturbed else 0,
        step_size=config["attack"]["step_size"],
        batch_size=config["batch_size"],
        image_size=config["image_size"],
    )
