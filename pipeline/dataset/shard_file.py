"""One shard: a WebDataset tar whose bytes depend on nothing but its samples."""

import io
import json
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from webdataset.writer import TarWriter

from basics.files import canonical_json

PNG_COMPRESSION = 1
"""zlib level of the images: noise-like pictures gain little from more, and a GPU would wait for it."""

MEMBERS = ("cls", "json", "png")
NO_PREDICTION = -1
"""The prediction on an image that no classifier has seen."""
_OWNER = "advbn-gen"


@dataclass(frozen=True, kw_only=True)
class SampleMetadata:
    """The `.json` of a sample: the same names and types in every sample, none of them null."""

    key: str
    """Sample key: the common stem of the sample's members."""
    label: int
    """True class index, as in `.cls`."""
    wnid: str
    """WordNet id of the class, or its folder name where the classes are not ImageNet's."""
    source: str
    """Name of the original inside its source."""
    source_sha256: str
    """Checksum of the original file."""
    index: int
    """Position in the whole run."""
    batch: int
    """Number of the batch whose statistics were perturbed together."""
    position: int
    """Position in that batch."""
    batch_size: int
    """Images in that batch."""
    clean_prediction: int
    """The attacked classifier's prediction on the original."""
    reconstructed_prediction: int
    """The prediction on the reconstruction."""
    adversarial_prediction: int
    """The prediction on the perturbed image before rounding to 8 bit, or `NO_PREDICTION`."""
    losses: list[float]
    """Cross-entropy of the true label before the first and after each step."""


def encode_png(image_3HW: NDArray[np.uint8]) -> bytes:
    """Encode an 8-bit image (3, H, W) without loss."""
    buffer = io.BytesIO()
    pixels = np.ascontiguousarray(image_3HW.transpose(1, 2, 0))
    Image.fromarray(pixels).save(buffer, format="png", compress_level=PNG_COMPRESSION)
    return buffer.getvalue()


@contextmanager
def open_shard(path: Path) -> Iterator["ShardWriter"]:
    """Open a new local file for the samples of a shard."""
    with path.open("wb") as file, ShardWriter(file) as writer:
        yield writer


class ShardWriter:
    """Writes samples to an open file as a tar with fixed owner and time, so that equal samples give equal bytes."""

    def __init__(self, file: BinaryIO) -> None:
        # PAX, because a key may be longer than the 100 characters of the older format.
        self._tar = TarWriter(file, encoder=False, user=_OWNER, group=_OWNER, mtime=0, format="PAX_FORMAT")

    def write(self, metadata: SampleMetadata, png: bytes) -> None:
        """Append one sample."""
        self._tar.write(
            {
                "__key__": metadata.key,
                "png": png,
                "cls": str(metadata.label).encode(),
                "json": canonical_json(asdict(metadata)),
            }
        )

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        """Write the end of the tar; the file stays open."""
        # After an error the file is thrown away; left open, the tar would complain when it is collected.
        with suppress(OSError, ValueError) if kind else nullcontext():
            self._tar.close()


@dataclass(frozen=True, kw_only=True)
class StoredSample:
    """A sample as it was read back."""

    key: str
    """Sample key."""
    members: dict[str, bytes]
    """Content of each member by its extension."""

    @property
    def metadata(self) -> dict[str, Any]:
        """The content of its `.json`."""
        content: dict[str, Any] = json.loads(self.members["json"])
        return content

    @property
    def label(self) -> int:
        """The content of its `.cls`."""
        return int(self.members["cls"])


def read_shard(path: Path) -> Iterator[StoredSample]:
    """Yield the samples of a shard in order; consecutive members with the same key are one sample.

    Raises:
        tarfile.TarError, OSError, EOFError: it is not a complete tar.
    """
    key, members = "", dict[str, bytes]()
    with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
        for member in tar:
            stem, _, extension = member.name.partition(".")
            if stem != key and members:
                yield StoredSample(key=key, members=members)
                members = {}
            content = tar.extractfile(member)
            key = stem
            members[extension] = content.read() if content else b""
    if members:
        yield StoredSample(key=key, members=members)
