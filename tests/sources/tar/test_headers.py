"""Headers of all formats against tarfile, and damaged ones."""

import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from sources.storage import open_random
from sources.tar.headers import TarFormatError, TarScan
from sources.tar.members import Member
from tests.sources.tar.built import LONG, add, build


def fill_all_kinds(tar: tarfile.TarFile) -> None:
    add(tar, "a", b"", tarfile.DIRTYPE)
    add(tar, "a/empty.png", b"")
    add(tar, "a/block.png", bytes(range(256)) * 2)
    add(tar, "a/more.png", bytes(range(256)) * 2 + b"!")
    add(tar, "a/readme", b"", tarfile.SYMTYPE)
    add(tar, "p" * 90 + "/" + "q" * 90)
    add(tar, "old", kind=tarfile.AREGTYPE)
    add(tar, "pipe", b"", tarfile.FIFOTYPE)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_the_members_are_those_that_tarfile_finds(tmp_path: Path, form: int) -> None:
    def fill(tar: tarfile.TarFile) -> None:
        fill_all_kinds(tar)
        if form != tarfile.USTAR_FORMAT:
            add(tar, LONG)
            add(tar, "after the long one")

    path = build(tmp_path / "x.tar", fill, form)
    with tarfile.open(path) as tar:
        expected = [Member(m.name, m.offset_data, m.size) for m in tar if m.isfile()]
    assert len(expected) >= 5
    assert list(TarScan(open_random(path))) == expected


@pytest.mark.slow
def test_real_tars_are_listed_as_tarfile_lists_them(shared_data: Path) -> None:
    for path in sorted(shared_data.glob("*.tar")):
        with tarfile.open(path) as tar:
            expected = [Member(m.name.removeprefix("./"), m.offset_data, m.size) for m in tar if m.isfile()]
        assert list(TarScan(open_random(path))) == expected


def test_a_size_over_8_gib_is_read_from_base_256_and_from_pax(tmp_path: Path) -> None:
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        member = tarfile.TarInfo("a.png")
        member.size = 9 << 30
        path = tmp_path / str(form)
        head = member.tobuf(form)
        with path.open("wb") as file:
            file.write(head)
            file.truncate(len(head) + member.size)  # sparse: takes no room on the disk
        assert list(TarScan(open_random(path))) == [Member("a.png", len(head), 9 << 30)]


def test_global_pax_headers_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "made by git"}) as tar:
        add(tar, "a.png")
    assert [member.name for member in TarScan(open_random(path))] == ["a.png"]


def test_a_tar_before_ustar_is_known_by_its_checksum(tmp_path: Path) -> None:
    header = bytearray(tarfile.TarInfo("a.png").tobuf(tarfile.USTAR_FORMAT))
    header[257:265] = bytes(8)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    (tmp_path / "v7.tar").write_bytes(bytes(header) * 2 + bytes(1024))
    assert list(TarScan(open_random(tmp_path / "v7.tar"))) == [Member("a.png", 512, 0), Member("a.png", 1024, 0)]


def test_a_tar_may_lack_its_closing_blocks(tmp_path: Path) -> None:
    path = build(tmp_path / "x.tar", lambda tar: add(tar, "a.png"))
    path.write_bytes(path.read_bytes()[:1024])
    assert len(list(TarScan(open_random(path)))) == 1


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_an_image_stored_as_a_link_is_not_lost_silently(tmp_path: Path, kind: bytes) -> None:
    path = build(tmp_path / "x.tar", lambda tar: add(tar, "a.png", b"", kind))
    with pytest.raises(TarFormatError, match=r"holds a\.png as a link; .*--hard-dereference"):
        list(TarScan(open_random(path)))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda _: b"", "is not a tar"),
        (lambda _: b"\x89PNG" * 200, "is not a tar"),
        (lambda whole: whole[:200], "is not a tar"),
        (lambda whole: b"x" + whole[1:], "is not a tar"),
        (lambda whole: whole[:515], "is cut off in the middle of a file"),
        (lambda whole: whole[:1100], "is cut off in the middle of a header"),
        (lambda whole: whole[:1024] + b"\x01" * 512, "has a damaged header at byte 1024"),
        (lambda whole: whole[:1024] + whole[:124] + b"notanumber!!" + whole[136:], "has a header without a size"),
    ],
)
def test_damage_is_named(tmp_path: Path, damage: Callable[[bytes], bytes], message: str) -> None:
    path = build(tmp_path / "x.tar", lambda tar: add(tar, "a.png"))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(TarFormatError, match=message):
        list(TarScan(open_random(path)))


@pytest.mark.parametrize("start", [b"9999", b"9999 ", b"1 "])
def test_a_damaged_pax_header_is_named(tmp_path: Path, start: bytes) -> None:
    path = build(tmp_path / "x.tar", lambda tar: add(tar, LONG), tarfile.PAX_FORMAT)
    content = path.read_bytes()
    path.write_bytes(content[:512] + start + content[512 + len(start) :])
    with pytest.raises(TarFormatError, match="has a damaged pax header"):
        list(TarScan(open_random(path)))


def test_content_is_read_along_where_it_is_wanted(tmp_path: Path) -> None:
    def fill(tar: tarfile.TarFile) -> None:
        for number in range(50):
            add(tar, f"{number}.cls", str(number).encode())
            add(tar, f"{number}.png", bytes(9000))
        add(tar, LONG + ".cls", b"long")

    path = build(tmp_path / "x.tar", fill)
    (chunk,) = TarScan(open_random(path)).chunks((b".cls",))
    kept = {name: content for name, content in zip(chunk.names, chunk.contents, strict=True) if content}
    assert kept == {f"{number}.cls": str(number).encode() for number in range(50)} | {LONG + ".cls": b"long"}
