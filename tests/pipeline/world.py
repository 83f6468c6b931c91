"""A small main job: the first 48 of 51 images, tiny networks, 12 shards of one batch of 4; about a second in all."""

import io
import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from basics.files import SEAL, read_sealed, write_sealed
from tests.support import Outcome, advbn_gen, image_folder, tiny_autoencoder, tiny_classifier

SHARDS, BATCH, IMAGES = 12, 4, 48
PER_CLASS = 17
"""No multiple of the batch: shard 4 and shard 8 hold two classes each."""
NAME = "imagenet-advbn-vgg"
CLASSES = 1000
LABELS = (0, 217, 491)
"""Labels of the images. The classifier predicts only these, correctly for some originals and other perturbed ones."""


@dataclass(frozen=True)
class World:
    """Images and networks on disk."""

    source: Path
    autoencoder: Path
    classifier: Path
    images: int = IMAGES
    """How many of the images are taken."""

    @classmethod
    def build(cls, folder: Path) -> "World":
        """Draw the images and initialise the networks."""
        return cls(
            source=image_folder(folder / "source", per_class=PER_CLASS),
            autoencoder=tiny_autoencoder(folder / "autoencoder.safetensors"),
            classifier=cls.build_classifier(folder / "classifier.safetensors"),
        )

    def half(self) -> "World":
        """Return its first 6 shards, for what takes long with each shard."""
        return replace(self, images=IMAGES // 2)

    @staticmethod
    def build_classifier(path: Path, **metadata: Any) -> Path:
        """Write the classifier's weights, with more metadata."""
        return tiny_classifier(path, CLASSES, seed=3, answers=LABELS, **metadata)

    def words(self, out: Path | str, *more: object, **changed: object) -> list[object]:
        """The command that makes the data set in `out`; `changed` are other values of its options."""
        options: dict[str, object] = {
            "encoder": "vgg", "source": self.source, "autoencoder": self.autoencoder,
            "classifier-weights": self.classifier, "image-size": 16, "batch-size": BATCH, "batches-per-shard": 1,
            "limit": self.images, "steps": 2, "threads": 1, "device": "cpu", "out": out,
        }  # fmt: skip
        options |= {name.replace("_", "-"): value for name, value in changed.items()}
        flat = [word for name, value in options.items() for word in (f"--{name}", value)]
        return ["imagenet-advbn", *flat, *more]

    def make(self, out: Path | str, *more: object, **changed: object) -> Outcome:
        """Run the command in this process."""
        return advbn_gen(*self.words(out, *more, **changed))


def forge_json(path: Path, **values: Any) -> None:
    """Change a sealed JSON file as somebody would who also mends its checksum."""
    write_sealed(path, {**read_sealed(path), **values})


def tar_of(folder: Path, shard: int, name: str = NAME) -> Path:
    """Path of a shard."""
    return folder / f"{name}-val-{shard:06d}.tar"


def members(tar: Path) -> dict[str, bytes]:
    """Member name -> content, in the tar's order, by plain tarfile."""
    with tarfile.open(tar) as file:
        return {member.name: file.extractfile(member).read() for member in file}  # type: ignore[union-attr]


def sample_metadata(folder: Path) -> list[dict[str, Any]]:
    """The .json of every sample of a data set, in order."""
    contents = [members(tar) for tar in sorted(folder.glob("*.tar"))]
    return [json.loads(value) for content in contents for name, value in content.items() if name.endswith(".json")]


def rewrite(tar: Path, content: Mapping[str, bytes]) -> None:
    """Write a tar with other members in the headers' own style."""
    with tarfile.open(tar) as file:
        template = file.getmembers()[0]
    with tarfile.open(tar, "w", format=tarfile.PAX_FORMAT) as file:
        for name, value in content.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime, info.mode = len(value), template.mtime, template.mode
            info.uname, info.gname = template.uname, template.gname
            file.addfile(info, _stream(value))


def _stream(content: bytes) -> Any:
    return io.BytesIO(content)


def broken_image(path: Path) -> bytes:
    """Cut an image file in half; return what it was."""
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    return whole


def size_of(png: bytes) -> tuple[int, int]:
    """Width and height of an encoded image."""
    with Image.open(_stream(png)) as image:
        return image.size


def without_addresses(content: Mapping[str, bytes]) -> dict[str, object]:
    """Folder contents without the two entries of the manifest that hold the address of the source."""
    manifest = json.loads(content["manifest.json"])
    manifest["source"] = manifest["config"]["source"] = manifest[SEAL] = ""
    return {**content, "manifest.json": manifest}
