"""Tars and shards of random members: every image that tar lists is read, named in a notice, or refused."""

import gzip
import random
import re
import shutil
import subprocess
import tarfile
from collections import Counter
from pathlib import Path

import pytest

from basics.errors import UserError
from sources.base import Source
from sources.names import IMG_EXTENSIONS
from sources.opening import open_source
from tests.sources.tar.built import add, add_sparse

TARS = 250
FORMS = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
KINDS = [b"0"] * 60 + [b"\0", b"7", b"1", b"2", b"3", b"4", b"6", b"Z", b"M", b"V", b"S", b"pax 0.1", b"pax 1.0"]
IMAGES = ("png", "PNG", "jpeg", "JPG", "tif")
NOUNS = {
    "image beside the class folders": "images beside the class folders",
    "image of another split": "images of other splits",
    "hidden image or label": "hidden images or labels",
    "file after which another of its name comes": "files after which others of their names come",
    "further image of a sample": "further images of samples",
}
"""Nouns of the notice that stand for images, one and many."""


class Dice:
    """Names and kinds of members, drawn at random. Most tars have a few unusual ones, so that some can be read."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.odd = self.dice.choice([0, 0, 0.02, 0.1])
        self.form = self.dice.choice(FORMS)
        self.parts = self.dice.choice(["abc", "abc", ("train/a", "val/a", "val/b")])
        self.number = 0

    def maybe(self, one: str, other: str) -> str:
        return one if self.dice.random() < self.odd else other

    def kind(self) -> bytes:
        return self.dice.choice(KINDS) if self.dice.random() < self.odd else b"0"

    def folder(self) -> str:
        start = self.dice.choice(["", "", "", "./", self.maybe("../", ""), self.maybe("/", "")])
        deep = self.maybe("sub/", "") + self.maybe(".hidden/", "") + self.maybe("x" * 120 + "/", "")
        return start + self.dice.choice(self.parts) + "/" + deep

    def stem(self) -> str:
        self.number += self.dice.random() > self.odd
        return self.maybe("._", "") + f"{self.number}" + self.maybe(".5", "") + self.maybe("ü", "")

    def extension(self) -> str:
        return self.maybe(self.dice.choice(["gif", "txt", "json", "CLS", "mask.png", "md"]), self.dice.choice(IMAGES))

    def class_folders(self) -> list[str]:
        names = [self.folder() + self.stem() + "." + self.extension() for _ in range(self.dice.randint(1, 25))]
        return [*names, self.maybe("beside.png", "README"), self.maybe("a/", "notes.txt")]

    def samples(self) -> list[str]:
        names = []
        for _ in range(self.dice.randint(1, 12)):
            key = self.maybe(self.folder(), "") + self.stem()
            files = [f"{key}.{self.extension()}", f"{key}.{self.maybe('CLS', 'cls')}"]
            files += [f"{key}.{self.maybe('mask.png', 'json')}"]
            self.dice.shuffle(files)
            names += files[: len(files) - (self.dice.random() < self.odd)]
        if self.dice.random() < self.odd:
            self.dice.shuffle(names)
        return names


def write(path: Path, dice: Dice, names: list[str]) -> None:
    with tarfile.open(path, "w", format=dice.form) as tar:
        for index, name in enumerate(names):
            kind = dice.kind()
            label = b"7" if name.lower().endswith(".cls") else f"content {index}".encode()
            if kind in {b"S", b"pax 0.1", b"pax 1.0"}:
                if len(name) < 100:
                    add_sparse(tar, name, "gnu" if kind == b"S" else kind.decode())
            elif kind in b"0\x007":
                add(tar, name, label, kind if dice.form != tarfile.USTAR_FORMAT else b"0")
            else:
                add(tar, name, b"", kind)


def finish(path: Path, dice: Dice, more: Path) -> bool:
    """Change the end of a tar; return whether images after an end mark are to be expected."""
    content = path.read_bytes()
    end = dice.dice.choice(["as it is", "none", "one", "many", "another", "another", "junk"])
    whole = content.rstrip(b"\0")
    whole += bytes(-len(whole) % 512)
    if end == "as it is" or len(whole) < 1024:
        pass
    elif end == "another":
        content = dice.dice.choice([content, whole + bytes(512)]) + more.read_bytes()
    else:
        content = (
            whole + {"none": b"", "one": bytes(512), "many": bytes(70_000), "junk": bytes(1024) + b"junk" * 99}[end]
        )
    if dice.dice.random() < 0.3:
        half = len(content) // 2
        content = gzip.compress(content[:half], 1) + gzip.compress(content[half:], 1)
    path.write_bytes(content)
    return end == "another"


def listed(path: Path) -> list[str]:
    """The members as tar lists them, over all end marks; as tarfile does where there is no tar."""
    program = shutil.which("tar")
    if program is None:
        with tarfile.open(path, ignore_zeros=True) as tar:
            return tar.getnames()
    command = [program, "--list", "--ignore-zeros", "--absolute-names", "--quoting-style=literal", "--file", str(path)]
    said = subprocess.run(command, capture_output=True, check=False)
    return said.stdout.decode().splitlines()


def opened(path: Path) -> Source | str:
    """The source, or the sentence with which it is refused."""
    try:
        return open_source(path)
    except UserError as error:
        return str(error)


def counted(notices: str) -> int:
    """How many images and labels the notice names."""
    return sum(
        int(number) for one, many in NOUNS.items() for number in re.findall(rf"(\d+) (?:{one}|{many})\b", notices)
    )


def is_counted(name: str, source: Source) -> bool:
    """Whether a listed member is an image, or a hidden label, which the notice counts with hidden images."""
    label = name.lower().endswith(".cls") and (name.startswith(".") or "/." in name.removeprefix("."))
    return name.lower().endswith(IMG_EXTENSIONS) or (label and len(source.records) > 0)


@pytest.mark.slow
@pytest.mark.parametrize("shards", [False, True])
def test_every_image_that_tar_lists_is_read_or_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], shards: bool
) -> None:
    path, more = tmp_path / "x.tar", tmp_path / "y.tar"
    outcomes = Counter[str]()
    for seed in range(TARS):
        dice = Dice(seed)
        names = dice.samples() if shards else dice.class_folders()
        write(path, dice, names)
        write(more, dice, ["c/more.png"])
        goes_on = finish(path, dice, more)
        members = listed(path)
        source = opened(path)
        if isinstance(source, str):
            assert "x.tar" in source, seed
            assert dice.odd or goes_on or not members or "no folder named val" in source, (seed, source)
            outcomes["refused"] += 1
            continue
        notices = capsys.readouterr().err
        assert not goes_on, seed
        images = [name for name in members if is_counted(name.removeprefix("./"), source)]
        assert len(source.records) + counted(notices) == len(images), (seed, members, notices)
        known = Counter(name.rpartition("/")[2] for name in images)
        assert not Counter(record.name.rpartition("/")[2].lower() for record in source.records) - Counter(
            name.lower() for name in known.elements()
        ), seed
        assert all(source.read(record).startswith(b"content ") for record in source.records), seed
        outcomes["noticed" if "Left out" in notices else "read"] += 1
    assert min(outcomes[each] for each in ("read", "refused", "noticed")) >= 10, outcomes
