"""Images or clips in a folder: in class folders, or images flat with a label list beside."""

from collections.abc import Mapping, Sequence

from basics.errors import UserError
from basics.paths import AnyPath, is_remote
from basics.reading import read_bytes
from sources.base import ClassMap, ImageRecord, Source
from sources.classes import imagenet_map
from sources.content import FileState, local_states, remote_states
from sources.ilsvrc import LIST_BEGINNING, LISTS, label_flat, names_images
from sources.layout import label_folders, refuse_backslashes
from sources.listing import Folder, Listing
from sources.names import canonical_split, check_printable, is_media, of_split
from sources.order import IMAGE_FOLDER, image_folder_order
from sources.storage import open_random_access


class FolderSource(Source):
    """Images as files of one folder.

    Args:
        address: Address of the source, as the user gave it.
        root: The folder that holds the class folders or, if `flat`, the images.
        labels: Label of each record name.
        classes: What the labels mean.
        flat: Whether the images lie in `root` itself, so that the class folders in the record names do not exist.
    """

    def __init__(
        self, address: str, root: AnyPath, labels: Mapping[str, int], classes: ClassMap, *, flat: bool = False
    ) -> None:
        self.address = address
        self.records = image_folder_order(labels)
        self.classes = classes
        self.order = IMAGE_FOLDER
        self._root = root
        self._flat = flat

    def read(self, record: ImageRecord) -> bytes:
        """Return the encoded bytes of one image, exactly as stored.

        Raises:
            OSError: it cannot be read.
        """
        return read_bytes(self._root / self._file_name(record))

    def file_states(self, records: Sequence[ImageRecord]) -> list[FileState]:
        """Return the states of the files of some of its records.

        Raises:
            OSError: a server does not say.
        """
        names = [self._file_name(record) for record in records]
        if is_remote(self._root):
            return remote_states(self._root, names)
        return local_states([f"{self._root}/{name}" for name in names])

    def record_states(self, records: Sequence[ImageRecord]) -> list[FileState]:
        """Return the same, in the records' order.

        Raises:
            OSError: a server does not say.
        """
        return self.file_states(records)

    def _file_name(self, record: ImageRecord) -> str:
        return record.name.partition("/")[2] if self._flat else record.name


def open_images(
    address: str, folder: AnyPath, found: Listing, labels: AnyPath | None, beside: tuple[AnyPath, ...]
) -> FolderSource:
    """Make a source of the images in a folder; a notice says what else it holds.

    Args:
        address: Address of the source, as the user gave it.
        folder: The folder.
        found: What lies below it; at least one image.
        labels: The user's label list, for a flat folder.
        beside: Folders in which a devkit is looked for.

    Raises:
        UserError: the labels are missing or wrong, or there is a label list for class folders.
    """
    names, left_out = found
    check_printable(names, str(folder))
    if labels is None:
        refuse_backslashes(names, str(folder), left_out.media)
    nested = [name for name in names if "/" in name]
    if nested:
        _refuse_listed(folder, names, left_out.documents)
    if nested and labels is None:
        # Images beside the class folders have no class; torchvision leaves them out, too.
        left_out.beside = [name for name in names if "/" not in name]
        table, classes = label_folders(nested, str(folder), left_out)
        return FolderSource(address, folder, table, classes)
    if nested:
        raise UserError(f"{folder} has class folders, which say the labels; leave out the label list {labels}.")
    if left_out.media == "clip":
        raise UserError(f"{folder} holds clips and no class folders; put the clips of each class into a folder.")
    table = label_flat(names, labels, str(folder), beside)
    left_out.folders = []
    left_out.say(str(folder))
    return FolderSource(address, folder, table, imagenet_map(), flat=True)


def _refuse_listed(folder: AnyPath, names: list[str], documents: list[str]) -> None:
    """Refuse a folder whose images lie in one folder, with a label list beside it: that folder is no class."""
    parents = {name.rpartition("/")[0] for name in names}
    for list_name in documents if len(parents) == 1 else ():
        if "/" not in list_name and list_name.endswith(LISTS):
            files = {name.rpartition("/")[2] for name in names}
            text = open_random_access(folder / list_name, gzipped=False)
            # A server refuses to send a part of an empty file.
            if names_images(text.read(0, min(text.size, LIST_BEGINNING)) if text.size else b"", files):
                images = folder / parents.pop()
                raise UserError(
                    f"{folder / list_name} lists the images of {images}, which is no class; give {images}, "
                    f"with --labels {folder / list_name}."
                )


def find_split(folder: Folder, split: str) -> Folder:
    """Return the sub-folder of a split if the folder holds splits and no classes, else the folder itself.

    Raises:
        UserError: it holds splits, but not this one.
        OSError: a folder cannot be listed.
    """
    folders = folder.folders()
    splits = [name for name in folders if canonical_split(name) or name == split]
    # Splits beside a folder of images: that is refused or noticed when the classes are named.
    if not splits or any(_holds_images(folder.into(name)) for name in folders if name not in splits):
        return folder
    chosen = of_split(splits, split)
    if not chosen:
        found = ", ".join(sorted(splits))
        raise UserError(
            f"{folder.path} has no folder named {split}, but {found}; give another --split, or one of these folders."
        )
    # A folder with the split's own name is preferred to one with a synonym.
    return folder.into(split if split in chosen else min(chosen))


def _holds_images(folder: Folder) -> bool:
    return any(is_media(name, folder.media) for name in folder.files())
