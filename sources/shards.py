"""WebDataset shards: tars of samples, whose files share the part of their names before the first dot."""

import json
import re
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

from basics.errors import UserError
from basics.paths import AnyPath
from basics.reading import exists
from sources.base import ClassMap, numbered_classes
from sources.classes import imagenet_index, imagenet_map
from sources.left_out import LeftOut
from sources.names import IMG_EXTENSIONS, check_printable, is_document, is_label
from sources.storage import read_text
from sources.tar.scanning import MemberTable, Scanned, Tar, scan_each
from sources.tar.source import TarSource

MANIFEST = "manifest.json"
_IMAGES = frozenset(extension[1:] for extension in IMG_EXTENSIONS)
_ONCE = _IMAGES | {"cls", "json"}
"""Extensions of the files that are read, of which a sample has one each."""
_WNID_FIELD = re.compile(rb'"wnid"\s*:\s*"(n\d{8})"')


_File = tuple[int, int, bytes]
"""Offset, size and content of a file of a sample; the content is empty unless the scan read it as well."""


@dataclass
class _Samples:
    """The samples of one shard, in columns."""

    agree: bool
    """Whether the JSON of every sample has the wnid of its label as an ImageNet-1k index."""
    files: list[str] = field(default_factory=list)
    """`<key>.<extension>` of each image."""
    labels: "array[int]" = field(default_factory=lambda: array("l"))
    offsets: "array[int]" = field(default_factory=lambda: array("q"))
    sizes: "array[int]" = field(default_factory=lambda: array("q"))
    left_out: LeftOut = field(default_factory=LeftOut)
    """Members that belong to no sample, and further images of samples."""


def are_shards(members: Iterable[str]) -> bool:
    """Return whether tars are shards with labels, that is, have a `.cls` among their first members."""
    return any(map(is_label, members))


def open_shards(address: str, shards: Sequence[AnyPath]) -> TarSource:
    """Make a source of shards whose samples have one image and `cls`, the label in ASCII digits.

    The labels are taken as they are. What they mean is read from `classes` in a `manifest.json` beside the
    first shard (`{"imagenet": bool, "names": [...]}`; the names may be left out if they are ImageNet-1k's). Without
    one they are ImageNet-1k indices only if every sample's `json` has the wnid of its label; otherwise the classes are
    named by their numbers. A record is
    named `<class>/<key>.<extension>`, with the shard's name after the class where that is not unique.

    Args:
        address: Address of the source, as the user gave it.
        shards: The tars.

    Raises:
        UserError: a shard cannot be read, a sample lacks its image or label, has one twice, or is named with further
            dots, or the manifest does not fit.
    """
    manifest = shards[0].with_name(MANIFEST)
    classes = _declared_classes(manifest)
    agree = classes is None
    files: list[str] = []
    labels = array("l")
    locations, tars, left_out = MemberTable(), [], LeftOut()
    for number, (tar, found) in enumerate(scan_each(shards, partial(_list_samples, want_wnid=agree))):
        tars.append(tar)
        agree = agree and found.agree
        files += found.files
        labels += found.labels
        locations.extend(number, found.offsets, found.sizes)
        left_out.extend(found.left_out)
    if not files:
        raise UserError(f"{address} holds no sample with an image and a label; give other shards.")
    highest = max(labels)
    if classes is None:
        classes = imagenet_map() if agree else numbered_classes(highest + 1)
    if highest >= classes.count:
        raise UserError(
            f"{address} has the label {highest}, but {manifest} names {classes.count} classes; correct one of the two."
        )
    names = _record_names(files, [classes.names[label] for label in labels], locations.tars, tars)
    check_printable(names, address)
    locations.rows = dict(zip(names, range(len(names)), strict=True))
    left_out.say(address)
    return TarSource(address, tars, dict(zip(names, labels, strict=True)), locations, classes)


def _declared_classes(manifest: AnyPath) -> ClassMap | None:
    """Return the class map that a manifest declares, None if there is no manifest or it declares none."""
    try:
        if not exists(manifest):
            return None
        content = json.loads(read_text(manifest, "manifest"))
        declared = content.get("classes")
        if declared is None:
            return None
        if declared["imagenet"] is True and "names" not in declared:
            return imagenet_map()
        return ClassMap(names=tuple(map(str, declared["names"])), imagenet=bool(declared["imagenet"]))
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise UserError(
            f"The manifest {manifest} is damaged or no manifest; restore it, or rename it if it is another program's."
        ) from error


def _list_samples(shard: Scanned, *, want_wnid: bool) -> _Samples:
    """Return the samples of one shard: files that follow each other with the same key."""
    samples = _Samples(want_wnid)
    files: dict[str, _File] = {}
    last = ""
    # Their content is read during the scan: later, each would cost a read of its own.
    for chunk in shard.scan.chunks((b".cls", b".json") if want_wnid else (b".cls",)):
        for name, offset, size, content in zip(*chunk, strict=True):
            key, _, extension = name.partition(".")
            if "/" in extension:
                key, extension = _split(name)
            if key != last and files:
                _add_sample(samples, last, files, shard)
                files = {}
            last = key
            extension = extension.lower()
            if extension in files and extension in _ONCE:
                raise UserError(f"The sample {key} in {shard.path} has {extension} twice; take one of the two away.")
            files[extension] = offset, size, content
    if files:
        _add_sample(samples, last, files, shard)
    samples.left_out.hidden, samples.left_out.links = shard.scan.unused.hidden, shard.scan.unused.links
    return samples


def _add_sample(samples: _Samples, key: str, files: dict[str, _File], shard: Scanned) -> None:
    images = files.keys() & _IMAGES
    # Most samples have these files and no others.
    if len(files) > len(images) + ("cls" in files) + ("json" in files):
        _note_others(samples.left_out, key, files, shard)
    if not images and "cls" not in files:
        return  # a README or a `__meta__` entry, not a sample
    if len(images) != 1 or "cls" not in files:
        found = ", ".join(sorted(files))
        raise UserError(f"The sample {key} in {shard.path} needs one image and a cls, and has {found}; repair it.")
    extension = images.pop()
    label = _label(_content(files["cls"], shard), key, shard.path)
    if samples.agree:
        wnid = _wnid(_content(files["json"], shard)) if "json" in files else None
        samples.agree = imagenet_index().get(wnid or "") == label
    offset, size, _ = files[extension]
    samples.files.append(f"{key}.{extension}")
    samples.labels.append(label)
    samples.offsets.append(offset)
    samples.sizes.append(size)


def _note_others(left_out: LeftOut, key: str, files: dict[str, _File], shard: Scanned) -> None:
    """Note the files that are not read, without texts; refuse those that are files of a sample with another key."""
    whole = not _IMAGES.isdisjoint(files) and "cls" in files
    for extension in files.keys() - _IMAGES:
        kind, name = extension.rpartition(".")[2], f"{key}.{extension}".rstrip(".")
        if kind == extension or kind not in _ONCE:
            if not is_document(name):
                left_out.unknown.append(name)
        elif whole and kind in _IMAGES:
            left_out.further.append(name)
        elif kind in _IMAGES or kind == "cls":
            raise UserError(
                f"The sample {key} in {shard.path} has the file {name}: a key ends at the first dot, as in webdataset, "
                f"so this is no file of a sample; name its files without further dots."
            )


def _split(name: str) -> tuple[str, str]:
    """Return key and extension of a name, split as WebDataset does: at the first dot of the file's name."""
    folder, slash, file = name.rpartition("/")
    stem, _, extension = file.partition(".")
    return folder + slash + stem, extension


def _content(file: _File, shard: Scanned) -> bytes:
    offset, size, content = file
    # Files with another spelling of the extension, such as `.CLS`, were not read during the scan.
    return content or shard.scan.content(offset, size)


def _label(content: bytes, key: str, shard: AnyPath) -> int:
    text = content.strip()
    if not text.isdigit():
        raise UserError(f"The cls of the sample {key} in {shard} is not a class index ({text[:20]!r}); repair it.")
    return int(text)


def _wnid(content: bytes) -> str | None:
    found = _WNID_FIELD.search(content)  # several times faster than parsing the JSON, and there are millions
    return found[1].decode() if found else None


def _record_names(files: list[str], classes: list[str], tars: Sequence[int], shards: Sequence[Tar]) -> list[str]:
    names = [f"{folder}/{file}" for folder, file in zip(classes, files, strict=True)]
    if len(set(names)) == len(names):
        return names
    counts = Counter(names)
    names = [
        name if counts[name] == 1 else f"{folder}/{shards[tar].path.stem}/{file}"
        for name, folder, file, tar in zip(names, classes, files, tars, strict=True)
    ]
    ((name, count),) = Counter(names).most_common(1)
    if count > 1:
        raise UserError(f"The sample {name} comes {count} times in the shards; take the repeated ones away.")
    return names
