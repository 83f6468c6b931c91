"""WebDataset shards: tars of samples, whose files share the part of their names before the first dot."""

import json
import re
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

from basics.errors import UserError
from sources.base import ClassMap
from sources.classes import imagenet_index, imagenet_map
from sources.headers import Member
from sources.names import IMG_EXTENSIONS, check_printable
from sources.storage import RandomFile, read_text
from sources.tarball import Location, TarSource, scan_tars

MANIFEST = "manifest.json"
_IMAGES = frozenset(extension[1:] for extension in IMG_EXTENSIONS)
_WNID_FIELD = re.compile(rb'"wnid"\s*:\s*"(n\d{8})"')


class _Sample(NamedTuple):
    file: str
    """`<key>.<extension>` of the image."""
    label: int
    location: Location
    wnid: str | None
    """Wnid that its JSON gives, if that was read."""


def are_shards(members: Iterable[str]) -> bool:
    """Tell whether tars are shards with labels: whether there is a `.cls` among their first members."""
    return any(name.endswith(".cls") for name in members)


def open_shards(address: str, shards: Sequence[Path]) -> TarSource:
    """Make a source of shards whose samples have one image and `cls`, the label in ASCII digits.

    The labels are taken as they are. What they mean is read from `classes` in a `manifest.json` beside the
    first shard (`{"imagenet": bool, "names": [...]}`). Without one they are ImageNet-1k indices only if every
    sample's `json` has the wnid of its label; otherwise the classes are named by their numbers. A record is
    named `<class>/<key>.<extension>`, with the shard's name after the class where that is not unique.

    Args:
        address: Where they are, as the user gave it.
        shards: The tars.

    Raises:
        UserError: a shard cannot be read, a sample lacks its image or label, or the manifest does not fit.
    """
    manifest = shards[0].with_name(MANIFEST)
    classes = _declared_classes(manifest)
    agree = classes is None
    files: list[str] = []
    labels = array("l")
    locations: list[Location] = []
    for sample in _samples(shards, want_wnid=agree):
        agree = agree and imagenet_index().get(sample.wnid or "") == sample.label
        files.append(sample.file)
        labels.append(sample.label)
        locations.append(sample.location)
    if not files:
        raise UserError(f"{address} holds no sample with an image and a label; give other shards.")
    if classes is None:
        classes = imagenet_map() if agree else ClassMap(names=tuple(map(str, range(max(labels) + 1))), imagenet=False)
    if max(labels) >= classes.count:
        raise UserError(f"{address} has the label {max(labels)}, but {manifest} names {classes.count} classes.")
    names = _record_names(files, [classes.names[label] for label in labels], locations, shards)
    check_printable(names, address)
    return TarSource(
        address,
        shards,
        dict(zip(names, labels, strict=True)),
        dict(zip(names, locations, strict=True)),
        classes,
    )


def _declared_classes(manifest: Path) -> ClassMap | None:
    """Return the class map that a manifest declares, None if there is no manifest or it declares none."""
    if not manifest.is_file():
        return None
    try:
        content = json.loads(read_text(manifest, "manifest"))
        declared = content.get("classes")
        if declared is None:
            return None
        return ClassMap(names=tuple(map(str, declared["names"])), imagenet=bool(declared["imagenet"]))
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise UserError(f"The manifest {manifest} is damaged or no manifest; restore or remove it.") from error


def _samples(shards: Sequence[Path], *, want_wnid: bool) -> Iterator[_Sample]:
    entries = ((number, *_split(member.name), file, member) for number, file, member in scan_tars(shards))
    for (number, key), group in groupby(entries, key=itemgetter(0, 1)):
        files = {extension: (file, member) for _, _, extension, file, member in group}
        images = files.keys() & _IMAGES
        if not images and "cls" not in files:
            continue  # a README, a `__meta__` entry: no sample
        if len(images) != 1 or "cls" not in files:
            found = ", ".join(sorted(files))
            raise UserError(
                f"The sample {key} in {shards[number]} needs one image and a cls, and has {found}; mend it."
            )
        extension = images.pop()
        member = files[extension][1]
        label = _label(_content(files["cls"]), key, shards[number])
        wnid = _wnid(_content(files["json"])) if want_wnid and "json" in files else None
        yield _Sample(f"{key}.{extension}", label, Location(number, member.offset, member.size), wnid)


def _split(name: str) -> tuple[str, str]:
    """Return key and lower-case extension of a name, split at its first dot as WebDataset does."""
    folder, slash, file = name.rpartition("/")
    stem, _, extension = file.partition(".")
    return folder + slash + stem, extension.lower()


def _content(entry: tuple[RandomFile, Member]) -> bytes:
    file, member = entry
    return file.read(member.offset, member.size)


def _label(content: bytes, key: str, shard: Path) -> int:
    text = content.strip()
    if not text.isdigit():
        raise UserError(f"The cls of the sample {key} in {shard} is not a class index ({text[:20]!r}); mend it.")
    return int(text)


def _wnid(content: bytes) -> str | None:
    found = _WNID_FIELD.search(content)  # several times faster than parsing the JSON, and there are millions
    return found[1].decode() if found else None


def _record_names(files: list[str], classes: list[str], locations: list[Location], shards: Sequence[Path]) -> list[str]:
    names = [f"{folder}/{file}" for folder, file in zip(classes, files, strict=True)]
    if len(set(names)) == len(names):
        return names
    counts = Counter(names)
    names = [
        name if counts[name] == 1 else f"{folder}/{shards[location.tar].stem}/{file}"
        for name, folder, file, location in zip(names, classes, files, locations, strict=True)
    ]
    ((name, count),) = Counter(names).most_common(1)
    if count > 1:
        raise UserError(f"The sample {name} comes {count} times in the shards; take the repeated ones away.")
    return names
