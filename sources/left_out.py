"""What a source holds beside its images: known by name, and named in one notice where it could have been meant."""

from collections.abc import Collection
from dataclasses import dataclass, field, fields

from basics.progress import say
from sources.names import Media, is_document

_RESOURCES = "__MACOSX"
"""Folder of hidden files that macOS adds to archives."""


@dataclass
class LeftOut:
    """Names of what a source does not use."""

    folders: list[str] = field(default_factory=list)
    """Class folders without images."""
    unknown: list[str] = field(default_factory=list)
    """Files that are neither images nor documents by their names, such as images of other kinds."""
    beside: list[str] = field(default_factory=list)
    """Images outside the class folders."""
    splits: list[str] = field(default_factory=list)
    """Images of a tar in other splits than the one that is taken."""
    hidden: list[str] = field(default_factory=list)
    """Hidden images and labels."""
    links: list[str] = field(default_factory=list)
    """What is no plain file, and neither image nor label by its name: links in tars, pipes."""
    repeated: list[str] = field(default_factory=list)
    """Images and labels of a tar after which another comes with the same name."""
    outside: list[str] = field(default_factory=list)
    """Files and folders of a tar outside the folder of its class folders, without images and documents."""
    further: list[str] = field(default_factory=list)
    """Images of a shard beside the one image of their sample."""
    documents: list[str] = field(default_factory=list)
    """Lists and texts, which are no images and need no notice."""
    media: Media = "image"
    """What the source's samples are; where that is clips, they stand for the images above."""

    def note(self, name: str) -> None:
        """Note a file that is no image."""
        (self.documents if is_document(name) else self.unknown).append(name)

    def extend(self, other: "LeftOut") -> None:
        """Add what another part of the source does not use."""
        for each in fields(self):
            if each.name != "media":
                getattr(self, each.name).extend(getattr(other, each.name))

    def moved_into(self, prefix: str) -> "LeftOut":
        """Return the same as seen from a folder (`<folder>/`) of a tar: by the paths there, all else as outside."""
        moved = LeftOut(
            hidden=self.hidden, links=self.links, repeated=self.repeated, beside=self.beside, media=self.media
        )
        for name in ("folders", "unknown", "documents"):
            for path in getattr(self, name):
                if path.startswith(prefix):
                    getattr(moved, name).append(path.removeprefix(prefix))
                elif name != "documents" and not prefix.startswith(f"{path}/"):
                    moved.outside.append(path)
        return moved

    def class_folders(self, used: Collection[str]) -> set[str]:
        """Return the folders at the top that are none of those in use."""
        paths = [f"{name}/" for name in self.folders] + self.unknown + self.documents
        return {top for top, slash, _ in (path.partition("/") for path in paths) if slash} - {*used, "", _RESOURCES}

    def say(self, where: str) -> None:
        """Say in one notice what is left out, without the documents."""
        parts = [
            _counted(getattr(self, name), *(noun.replace("image", self.media) for noun in nouns))
            for name, nouns in _NOUNS.items()
            if getattr(self, name)
        ]
        if parts:
            say(f"Left out of {where}: {', '.join(parts)}.")


_NOUNS = {
    "folders": ("folder without images", "folders without images"),
    "unknown": ("file of another kind", "files of other kinds"),
    "beside": ("image beside the class folders", "images beside the class folders"),
    "splits": ("image of another split", "images of other splits"),
    "hidden": ("hidden image or label", "hidden images or labels"),
    "links": ("link or other special file", "links or other special files"),
    "repeated": ("file after which another of its name comes", "files after which others of their names come"),
    "outside": ("other file or folder outside the class folders", "other files or folders outside the class folders"),
    "further": ("further image of a sample", "further images of samples"),
}


def _counted(names: list[str], noun: str, nouns: str) -> str:
    return f"1 {noun} ({names[0]})" if len(names) == 1 else f"{len(names)} {nouns} (such as {min(names)})"
