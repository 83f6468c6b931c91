"""Headers of all formats against tarfile, and damaged ones."""

import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from sources.storage import open_random_access
from sources.tar.headers import TarFormatError, TarScan
from sources.tar.members import Member
from tests.sources.tar.built import LONG, add, add_sparse, build


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
    assert list(TarScan(open_random_access(path))) == expected


@pytest.mark.slow
def test_real_tars_are_listed_as_tarfile_lists_them(shared_data: Path) -> None:
    for path in sorted(shared_data.glob("*.tar")):
        with tarfile.open(path) as tar:
            expected = [Member(m.name.removeprefix("./"), m.offset_data, m.size) for m in tar if m.isfile()]
        assert list(TarScan(open_random_access(path))) == expected


def test_a_size_over_8_gib_is_read_from_base_256_and_from_pax(tmp_path: Path) -> None:
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        member = tarfile.TarInfo("a.png")
        member.size = 9 << 30
        path = tmp_path / str(form)
        head = member.tobuf(form)
        with path.open("wb") as file:
            file.write(head)
            file.truncate(len(head) + member.size)  # sparse: takes no room on the disk
        assert list(TarScan(open_random_access(path))) == [Member("a.png", len(head), 9 << 30)]


def test_global_pax_headers_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "made by git"}) as tar:
        add(tar, "a.png")
    assert [member.name for member in TarScan(open_random_access(path))] == ["a.png"]


def test_a_tar_before_ustar_is_known_by_its_checksum(tmp_path: Path) -> None:
    header = bytearray(tarfile.TarInfo("a.png").tobuf(tarfile.USTAR_FORMAT))
    header[257:265] = bytes(8)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    (tmp_path / "v7.tar").write_bytes(bytes(header) * 2 + bytes(1024))
    assert list(TarScan(open_random_access(tmp_path / "v7.tar"))) == [Member("a.png", 512, 0), Member("a.png", 1024, 0)]


def test_a_tar_may_lack_its_closing_blocks(tmp_path: Path) -> None:
    path = build(tmp_path / "x.tar", lambda tar: add(tar, "a.png"))
    path.write_bytes(path.read_bytes()[:1024])
    assert len(list(TarScan(open_random_access(path)))) == 1


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_an_image_stored_as_a_link_is_not_lost_silently(tmp_path: Path, kind: bytes) -> None:
    path = build(tmp_path / "x.tar", lambda tar: add(tar, "a.png", b"", kind))
    with pytest.raises(TarFormatError, match=r"holds a\.png as a link; .*--hard-dereference"):
        list(TarScan(open_random_access(path)))


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
        list(TarScan(open_random_access(path)))


@pytest.mark.parametrize("start", [b"9999", b"9999 ", b"1 "])
def test_a_damaged_pax_header_is_named(tmp_path: Path, start: bytes) -> None:
    path = build(tmp_path / "x.tar", lambda tar: add(tar, LONG), tarfile.PAX_FORMAT)
    content = path.read_bytes()
    path.write_bytes(content[:512] + start + content[512 + len(start) :])
    with pytest.raises(TarFormatError, match="has a damaged pax header"):
        list(TarScan(open_random_access(path)))


def test_content_is_read_along_where_it_is_wanted(tmp_path: Path) -> None:
    def fill(tar: tarfile.TarFile) -> None:
        for number in range(50):
            add(tar, f"{number}.cls", str(number).encode())
            add(tar, f"{number}.png", bytes(9000))
        add(tar, LONG + ".cls", b"long")

    path = build(tmp_path / "x.tar", fill)
    (chunk,) = TarScan(open_random_access(path)).chunks((b".cls",))
    kept = {name: content for name, content in zip(chunk.names, chunk.contents, strict=True) if content}
    assert kept == {f"{number}.cls": str(number).encode() for number in range(50)} | {LONG + ".cls": b"long"}


SPARSE = ["gnu", "pax 0.1", "pax 1.0"]


@pytest.mark.parametrize("form", SPARSE)
@pytest.mark.parametrize("name", ["a/1.png", "a.cls", "a.CLS"])
def test_a_sparse_image_or_label_is_refused_by_name(tmp_path: Path, form: str, name: str) -> None:
    path = build(tmp_path / "x.tar", lambda tar: add_sparse(tar, name, form), tarfile.PAX_FORMAT)
    with tarfile.open(path) as tar:
        (member,) = tar
        assert member.name == name
        assert member.issparse()
    with pytest.raises(
        TarFormatError, match=rf"holds {name} as a sparse file, without its holes; pack it without --sp"
    ):
        list(TarScan(open_random_access(path)))


@pytest.mark.parametrize("form", SPARSE)
def test_another_sparse_file_is_passed_over_and_noted(tmp_path: Path, form: str) -> None:
    def fill(tar: tarfile.TarFile) -> None:
        add(tar, "a/1.png")
        add_sparse(tar, "a/disk.img", form)
        add(tar, "a/2.png")

    scan = TarScan(open_random_access(build(tmp_path / "x.tar", fill)))
    assert [member.name for member in scan] == ["a/1.png", "a/2.png"]
    assert scan.unused.links == ["a/disk.img"]


@pytest.mark.parametrize("kind", [tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, b"M", b"Z"])
def test_an_image_of_another_kind_is_refused_by_name(tmp_path: Path, kind: bytes) -> None:
    path = build(tmp_path / "x.tar", lambda tar: add(tar, "a/1.png", b"", kind))
    with pytest.raises(
        TarFormatError, match=r"holds a/1\.png as a (device or pipe|member of the unusual kind '[MZ]'); "
    ):
        list(TarScan(open_random_access(path)))
    path = build(tmp_path / "x.tar", lambda tar: add(tar, "a/notes", b"", kind))
    scan = TarScan(open_random_access(path))
    assert list(scan) == []
    assert scan.unused.links == ["a/notes"]


def test_folders_hidden_images_and_labels_are_noted(tmp_path: Path) -> None:
    def fill(tar: tarfile.TarFile) -> None:
        for name, kind in (("./", b"5"), ("./a/", b"5"), ("b", b"5"), ("c", b"D"), ("./d/", b"0"), (".e/", b"5")):
            add(tar, name, b"", kind)
        add(tar, "the volume", b"", b"V")
        for name in ("a/._1.png", ".f/1.png", ".DS_Store", ".g.cls"):
            add(tar, name)
        add(tar, "a/.h.png", b"", tarfile.SYMTYPE)

    scan = TarScan(open_random_access(build(tmp_path / "x.tar", fill)))
    assert list(scan) == []
    assert scan.unused.folders == ["", "a", "b", "c", "d"]
    assert sorted(scan.unused.hidden) == [".f/1.png", ".g.cls", "a/._1.png", "a/.h.png"]
    assert scan.unused.links == []


ZEROS = [0, 512, 1024, 10_240, 200_000 * 512]


@pytest.mark.parametrize("zeros", ZEROS, ids=str)
def test_any_amount_of_zeros_may_follow(tmp_path: Path, zeros: int) -> None:
    path = build(tmp_path / "x.tar", lambda tar: add(tar, "a.png"))
    with path.open("r+b") as file:
        file.truncate(1024 + zeros)
    assert len(list(TarScan(open_random_access(path)))) == 1


@pytest.mark.parametrize("zeros", ZEROS[1:], ids=str)
@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_tar_that_goes_on_after_its_end_mark_is_refused(tmp_path: Path, zeros: int, form: int) -> None:
    path = build(tmp_path / "x.tar", lambda tar: add(tar, "a.png"), form)
    size = len(path.read_bytes().rstrip(b"\0")) // 512 * 512 + 512
    with path.open("r+b") as file:
        file.truncate(size + zeros)
        file.seek(size + zeros)
        file.write(build(tmp_path / "y.tar", lambda tar: add(tar, "b.png"), form).read_bytes())
    with pytest.raises(TarFormatError, match=rf"goes on after its end mark, with another tar at byte {size + zeros}; "):
        list(TarScan(open_random_access(path)))


def test_what_is_no_tar_may_follow_the_end(tmp_path: Path) -> None:
    path = build(tmp_path / "x.tar", lambda tar: add(tar, "a.png"))
    path.write_bytes(path.read_bytes() + b"a signature" * 100)
    assert len(list(TarScan(open_random_access(path)))) == 1


@pytest.mark.parametrize("field", ["path", "size", "GNU.sparse.realsize"])
def test_a_global_header_that_gives_a_path_is_refused(tmp_path: Path, field: str) -> None:
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT, pax_headers={field: "1"}) as tar:
        add(tar, "a.png")
    with pytest.raises(TarFormatError, match="has a pax header that gives one path or size to all its files"):
        list(TarScan(open_random_access(path)))
