"""A source of images as a data set of torch, for training jobs of one's own; imports nothing that makes data sets."""

import os
from collections.abc import Callable
from typing import Any

from PIL import Image
from torch.utils.data import Dataset

from sources.decode import decode_rgb
from sources.opening import open_source


class LabelledImages(Dataset[tuple[Any, int]]):
    """Images and labels of anything that `--source` takes: shards of this program or of others, folders, tars.

    Items are read in place, by position, from whatever process asks for them, so `DataLoader` may shuffle them and use
    any number of workers, and `DistributedSampler` may share them out.

    Args:
        address: a folder, tar or shards, or an address of any file system of fsspec.
        transform: what is done with each image (8-bit RGB of Pillow); None returns it as it is.
        labels: label list or devkit of a flat ILSVRC2012 folder.
        split: which split to take where there are several.

    Raises:
        UserError: there is nothing of that kind, or it is damaged, unlabelled or inconsistent.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import mkdtemp
        >>> from PIL import Image
        >>> root = Path(mkdtemp())
        >>> for name in ("cat", "dog"):
        ...     (root / name).mkdir()
        ...     Image.new("RGB", (8, 8)).save(root / name / "1.png")
        >>> images = LabelledImages(root)
        >>> len(images), images.classes, images[1][1]
        (2, ('cat', 'dog'), 1)
    """

    def __init__(
        self,
        address: str | os.PathLike[str],
        transform: Callable[[Image.Image], Any] | None = None,
        *,
        labels: str | os.PathLike[str] | None = None,
        split: str = "val",
    ) -> None:
        self.source, self.transform = open_source(address, labels=labels, split=split), transform

    @property
    def classes(self) -> tuple[str, ...]:
        """Class name at each label."""
        return tuple(self.source.classes.names)

    @property
    def targets(self) -> list[int]:
        """Label of each image."""
        return [record.label for record in self.source.records]

    def __len__(self) -> int:
        return len(self.source.records)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        """Return an image, transformed, and its label.

        Raises:
            BrokenImageError: the image is broken.
        """
        record = self.source.records[index]
        image = decode_rgb(self.source.read(record), record.name)
        return (image if self.transform is None else self.transform(image)), record.label
