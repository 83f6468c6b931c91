"""Images that nobody labelled for ImageNet: a folder of photographs, or those that installed packages ship."""

from collections.abc import Collection, Mapping
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from basics.errors import UserError
from basics.paths import as_path
from basics.reading import is_folder, read_bytes
from sources.base import ImageRecord, Source
from sources.classes import imagenet_index, imagenet_map
from sources.folder import FolderSource
from sources.listing import list_folder
from sources.names import check_printable
from sources.opening import open_source

SHIPPED = {
    "scikit-image": (
        "skimage/data",
        (
            "astronaut.png", "camera.png", "chelsea.png", "coffee.png", "coins.png", "motorcycle_left.png",
            "rocket.jpg",
        ),
    ),
    "scikit-learn": ("sklearn/datasets/images", ("china.jpg", "flower.jpg")),
}  # fmt: skip
"""Package -> its folder of samples, and which of these are photographs of things that ImageNet has classes for."""


class ShippedPhotographs(Source):
    """The photographs of installed packages. All have the label 0, which means nothing.

    Raises:
        UserError: no such package is installed.
    """

    def __init__(self) -> None:
        self._files, self.packages = _shipped()
        if not self._files:
            raise UserError(
                f"No installed package ships photographs (neither {' nor '.join(SHIPPED)}); give --source FOLDER, or "
                f"pip install {next(iter(SHIPPED))}."
            )
        self.address = ", ".join(self.packages)
        self.records = [ImageRecord(name, 0) for name in sorted(self._files)]
        self.classes, self.order = imagenet_map(), "by name"

    def read(self, record: ImageRecord) -> bytes:
        """Return the encoded bytes of one image.

        Raises:
            OSError: it cannot be read.
        """
        return read_bytes(self._files[record.name])


def _shipped() -> tuple[Mapping[str, Path], list[str]]:
    """Return the photographs that are there by their names, and the packages that ship them, with their versions."""
    files: dict[str, Path] = {}
    packages = []
    for package, (folder, names) in SHIPPED.items():
        try:
            found = distribution(package)
        except PackageNotFoundError:
            continue
        paths = {name: Path(str(found.locate_file(f"{folder}/{name}"))) for name in names}
        there = {name: path for name, path in paths.items() if path.is_file()}
        packages += [f"{package} {found.version}"] if there else []
        files |= there
    return files, packages


def open_photographs(address: str, labels: Path | None = None) -> tuple[Source, bool]:
    """Open images, with labels of ImageNet-1k or without.

    Args:
        address: a source (see `sources.opening`), or a folder of images with any folders in it.
        labels: label list or devkit of a flat ILSVRC2012 folder.

    Returns:
        The source, and whether its labels are those of ImageNet-1k. If not, they mean nothing.

    Raises:
        UserError: there are no images, or the source cannot be opened.
    """
    path = as_path(address)
    try:
        listing = list_folder(path).listing() if is_folder(path) else None
    except OSError as error:
        raise UserError(f"The folder {address} cannot be listed ({error.strerror or error}); check it.") from error
    if labels is not None or listing is None or not listing.images or _has_class_folders(listing.images):
        source = open_source(address, labels=labels)
        return source, source.classes.imagenet
    check_printable(listing.images, address)
    listing.left_out.folders = []
    listing.left_out.say(address)
    return FolderSource(address, path, dict.fromkeys(listing.images, 0), imagenet_map()), False


def _has_class_folders(names: Collection[str]) -> bool:
    folders = {part for name in names for part in name.split("/")[:-1]}
    return not folders.isdisjoint(imagenet_index())
