"""A source of images as a data set of torch, for training jobs of one's own; imports nothing that makes data sets."""

from collections.abc import Callable
from typing import Any

from PIL import Image
from torch.utils.data import Dataset

from basics.paths import Address
from sources.decode import decode_rgb
from sources.opening import open_source


class LabelledImages(Dataset[tuple[Any, int]]):
    """Images and labels of anything that `--source` takes: shards of this program or of others, folders, tars.

    Items are read in place, by position, from whatever process asks for them, so `DataLoader` may shuffle them and use
    any number of workers, and `DistributedSampler` may share them out. An item is (image, label): what `transform`
    returns, and an integer from 0 on, the position of the class in `classes`.

    Args:
        address: a folder, tar or shards, or an address of any file system of fsspec.
        transform: what is done with each image (8-bit RGB of Pillow); None returns it as it is.
        labels: label list or devkit of a flat ILSVRC2012 folder.
        split: which split to take where there are several; `val` means `test` where that is what there is.

    Raises:
        UserError: there is nothing of that kind, or it is damaged, unlabelled or inconsistent.
        WorkError: an image is broken; when it is taken.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> from advbn_gen import LabelledImages
        >>> root = Path(tempfile.mkdtemp())
        >>> for name in ("cat", "dog"):
        ...     (root / name).mkdir()
        ...     Image.new("RGB", (8, 8)).save(root / name / "1.png")
        >>> images = LabelledImages(root)
        >>> image, label = images[1]
        >>> len(images), image.size, images.classes[label]
        (2, (8, 8), 'dog')
    """

    def __init__(
        self,
        address: Address,
        transform: Callable[[Image.Image], Any] | None = None,
        *,
        labels: Address | None = None,
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
