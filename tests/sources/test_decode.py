"""Torchvision's own loader and transforms, given the same bytes, are the judge wherever they can be."""

import io
import struct
import tarfile
import threading
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms
from torchvision.datasets.folder import pil_loader

from basics.errors import WorkError
from sources.decode import BrokenImageError, decode_rgb, load_image


def encode(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def noise(mode: str, width: int = 40, height: int = 30) -> Image.Image:
    size = len(Image.new(mode, (width, height)).tobytes())
    content = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8).tobytes()
    return Image.frombytes(mode, (width, height), content)


def by_torchvision(content: bytes, path: Path, size: int) -> torch.Tensor:
    """The published evaluation: values in [0, 1], (3, H, W)."""
    path.write_bytes(content)
    published = transforms.Compose([transforms.Resize(size), transforms.CenterCrop(size), transforms.ToTensor()])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pixels: torch.Tensor = published(pil_loader(str(path)))
    return pixels


def palette(transparency: bytes | int | None = None) -> bytes:
    image = noise("RGB").quantize(32)
    return encode(image) if transparency is None else encode(image, transparency=transparency)


def rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encode(noise("RGB"), "JPEG", exif=exif)


def corrupt_exif() -> bytes:
    return encode(noise("RGB"), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x09" + b"\xff" * 30)


ORDINARY = {
    "jpeg": encode(noise("RGB"), "JPEG"),
    "progressive jpeg": encode(noise("RGB"), "JPEG", progressive=True, subsampling=0),
    "gray jpeg": encode(noise("L"), "JPEG"),
    "cmyk jpeg": encode(noise("CMYK"), "JPEG"),
    "png": encode(noise("RGB")),
    "gray png": encode(noise("L")),
    "black and white png": encode(noise("1")),
    "gray and alpha png": encode(noise("LA")),
    "rgba png": encode(noise("RGBA")),
    "palette png": palette(),
    "palette png with one transparent colour": palette(3),
    "palette png with alpha of each colour": palette(bytes(range(32))),
    "rgb png with a transparent colour": encode(noise("RGB"), transparency=(1, 2, 3)),
    "webp": encode(noise("RGB"), "WEBP"),
    "gif": encode(noise("P"), "GIF"),
    "rotated jpeg": rotated(),
    "jpeg with corrupt exif": corrupt_exif(),
    "large": encode(noise("RGB", 333, 517), "JPEG"),
    "wide": encode(noise("RGB", 1001, 50)),
    "one pixel": encode(noise("RGB", 1, 1)),
}


@pytest.mark.parametrize("kind", ORDINARY)
@pytest.mark.parametrize("size", [32, 65])
def test_pixels_are_those_of_torchvision(tmp_path: Path, kind: str, size: int) -> None:
    pixels = load_image(ORDINARY[kind], kind, size)
    assert pixels.dtype == torch.uint8
    assert pixels.shape == (3, size, size)
    assert torch.equal(pixels / 255, by_torchvision(ORDINARY[kind], tmp_path / "image", size))


@pytest.mark.slow
def test_real_images_are_those_of_torchvision(shared_data: Path, tmp_path: Path) -> None:
    with tarfile.open(shared_data / "imagenet-sample-500.tar") as tar:
        members = [member for member in tar if member.isfile()]
        assert len(members) == 500
        for member in members[::10]:
            file = tar.extractfile(member)
            assert file is not None
            content = file.read()
            expected = by_torchvision(content, tmp_path / "image", 256)
            assert torch.equal(load_image(content, member.name, 256) / 255, expected)


def test_adobe_jpegs_store_cmyk_inverted() -> None:
    """Pillow writes the Adobe marker; without it the same numbers mean the opposite ink."""
    cyan = encode(Image.new("CMYK", (16, 16), (255, 0, 0, 0)), "JPEG", quality=100)
    assert b"Adobe" in cyan
    red, green, blue = np.asarray(decode_rgb(cyan, "cyan"))[8, 8]
    assert red < 10
    assert green > 245
    assert blue > 245


def test_the_exif_rotation_is_ignored() -> None:
    assert decode_rgb(rotated(), "rotated").size == (40, 30)


def test_16_bit_grayscale_keeps_its_high_byte_and_does_not_turn_white() -> None:
    values = np.array([[0, 255, 256, 0x7FFF, 0x8000, 0xFFFF]], dtype=np.uint16)
    for form in ("PNG", "TIFF"):
        pixels = np.asarray(decode_rgb(encode(Image.fromarray(values), form), form))
        assert pixels.tolist() == [[[high] * 3 for high in (0, 0, 1, 0x7F, 0x80, 0xFF)]]


def test_16_bit_grayscale_is_as_dark_as_the_same_in_16_bit_colour() -> None:
    gray = encode(Image.fromarray(np.full((1, 1), 0x1234, dtype=np.uint16)))
    row = zlib.compress(b"\0" + b"\x12\x34" * 3)
    chunks = {b"IHDR": struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0), b"IDAT": row, b"IEND": b""}
    colour = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks.items()
    )
    assert decode_rgb(gray, "gray").getpixel((0, 0)) == decode_rgb(colour, "colour").getpixel((0, 0))


def tiff(kind: int, bits: int, samples: bytes, *, white_is_zero: bool = False, alpha: int | None = None) -> bytes:
    """A little-endian TIFF with one row of gray, uncompressed: what Pillow reads and does not write.

    Args:
        kind: SampleFormat: 1 unsigned, 2 signed, 3 floating-point.
        bits: of a sample.
        samples: the pixels.
        white_is_zero: PhotometricInterpretation 0.
        alpha: ExtraSamples; with it, each pixel has a second sample.
    """
    bands = 1 if alpha is None else 2
    width = len(samples) * 8 // bits // bands
    wide = (bits & 0xFFFF) | (bits << 16 if bands == 2 else 0)
    tags = [(256, 1, width), (257, 1, 1), (258, bands, wide), (259, 1, 1), (262, 1, int(not white_is_zero))]
    tags += [(273, 1, 8), (277, 1, bands), (278, 1, 1), (279, 1, len(samples))]
    tags += [(338, 1, alpha)] if alpha is not None else []
    tags += [(339, bands, kind | (kind << 16 if bands == 2 else 0))]
    start = 8 + len(samples) + len(samples) % 2
    entries = b"".join(struct.pack("<HHII", tag, 3, count, value) for tag, count, value in tags)
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    return (b"II*\0" + struct.pack("<I", start) + samples).ljust(start, b"\0") + directory


def row_of(content: bytes) -> list[int]:
    """The gray of the first row."""
    row = np.asarray(decode_rgb(content, "x"))[0]
    assert (row == row[:, :1]).all()
    return [int(value) for value in row[:, 0]]


@pytest.mark.parametrize("maximum", [65535, 4095, 1000])
def test_deep_pgm_keeps_the_high_byte_relative_to_its_maximum(maximum: int) -> None:
    values = [0, maximum // 4, maximum // 2, maximum]
    expected = [round(value / maximum * 65535) >> 8 for value in values]
    assert expected[2] in {127, 128}
    head = f"4 1\n{maximum}\n".encode()
    assert row_of(b"P5\n" + head + np.array(values, ">u2").tobytes()) == expected
    assert row_of(b"P2\n" + head + " ".join(map(str, values)).encode()) == expected


def test_a_shallow_pgm_is_read_as_before() -> None:
    assert row_of(b"P5\n4 1\n255\n" + bytes([0, 1, 128, 255])) == [0, 1, 128, 255]
    assert row_of(b"P5\n3 1\n15\n" + bytes([0, 3, 15])) == [0, 51, 255]


def test_tiff_of_12_bits_and_with_white_as_zero_has_the_same_gray() -> None:
    deep = np.array([0, 0x8000, 0x1200, 0xFFFF], "<u2").tobytes()
    assert row_of(tiff(1, 16, deep)) == [0, 0x80, 0x12, 0xFF]
    assert row_of(tiff(1, 16, deep, white_is_zero=True)) == [0xFF, 0x7F, 0xED, 0]
    packed = bytes([0x00, 0x08, 0x00, 0x12, 0x0F, 0xFF])  # 0x000, 0x800, 0x120, 0xFFF
    assert row_of(tiff(1, 12, packed)) == [0, 0x80, 0x12, 0xFF]


def test_gray_multiplied_by_its_transparency_is_divided_again() -> None:
    assert row_of(tiff(1, 8, bytes([100, 200, 50, 255]), alpha=1)) == [127, 50]
    assert row_of(tiff(1, 8, bytes([100, 200, 50, 255]), alpha=2)) == [100, 50]


FLOATS = np.array([0, 0.5, 1], "<f4").tobytes()
INTEGERS = np.array([0, 7, 65535], "<i4").tobytes()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (encode(Image.fromarray(np.array([[0, 65535]], np.int32)), "TIFF"), "integers"),
        (tiff(1, 32, INTEGERS), "integers"),
        (tiff(2, 32, INTEGERS), "integers"),
        (tiff(2, 16, np.array([-1, 5], "<i2").tobytes()), "integers"),
        (tiff(3, 32, FLOATS), "floating-point numbers"),
        (tiff(3, 32, FLOATS, white_is_zero=True), "floating-point numbers"),
        (b"Pf\n3 1\n-1.0\n" + FLOATS, "floating-point numbers"),
    ],
    ids=["int32", "uint32", "signed 32", "signed 16", "float", "float, white is zero", "pfm"],
)
def test_pixels_without_a_known_range_are_a_broken_image(content: bytes, reason: str) -> None:
    with pytest.raises(BrokenImageError, match=rf"The image deep is broken: its pixels are {reason} .*; convert it to"):
        decode_rgb(content, "deep")


@pytest.mark.parametrize("mode", ["LAB", "PA", "YCbCr", "CMYK"])
def test_rare_modes_are_converted_by_pillow(mode: str) -> None:
    image = noise(mode)
    if mode == "PA":
        image.putpalette(bytes(range(256)) * 3)
    content = encode(image, "TIFF")
    with Image.open(io.BytesIO(content)) as stored:
        assert stored.mode == mode
        assert np.array_equal(np.asarray(decode_rgb(content, mode)), np.asarray(stored.convert("RGB")))


JPEG = encode(noise("RGB", 200, 200), "JPEG")
PNG = encode(noise("RGB", 200, 200))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"no image", "not an image of a known format"),
        (bytes(1000), "not an image of a known format"),
        (JPEG[: len(JPEG) // 2], "truncated"),
        (PNG[: len(PNG) // 2], "truncated"),
        (JPEG[:100], "."),
        (PNG[:40], "."),
        (PNG[:1000] + bytes(50) + PNG[1050:], "."),
        (PNG[:30] + b"xxxx" + PNG[34:], "."),
    ],
    ids=["empty", "text", "zeros", "half jpeg", "half png", "jpeg head", "png head", "hole", "checksum"],
)
def test_a_broken_file_is_named(content: bytes, reason: str) -> None:
    with pytest.raises(BrokenImageError, match=rf"The image n01/x\.JPEG is broken: .*{reason}"):
        load_image(content, "n01/x.JPEG", 32)


def test_a_broken_image_is_work_that_failed() -> None:
    assert issubclass(BrokenImageError, WorkError)


@pytest.mark.slow
def test_a_decompression_bomb_is_refused() -> None:
    bomb = encode(Image.new("1", (20_000, 10_000)))
    assert len(bomb) < 100_000
    with pytest.raises(BrokenImageError, match=r"The image bomb is broken: .*decompression bomb"):
        decode_rgb(bomb, "bomb")


def test_an_image_that_resizing_would_blow_up_is_refused() -> None:
    strip = encode(Image.new("1", (30_000, 1)))
    with pytest.raises(BrokenImageError, match=r"The image strip is broken: 30000x1 is too elongated"):
        load_image(strip, "strip", 256)


def test_out_of_memory_is_no_broken_image(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(MemoryError):
        decode_rgb(PNG, "x")


@pytest.mark.parametrize(
    ("kind", "message"),
    [("palette png with alpha of each colour", "Transparency"), ("jpeg with corrupt exif", "Corrupt EXIF")],
)
def test_pillow_does_warn_of_these_files(kind: str, message: str) -> None:
    """Else the next test would prove nothing."""
    with pytest.warns(UserWarning, match=message):
        Image.open(io.BytesIO(ORDINARY[kind])).convert("RGB").load()


def test_pillows_warnings_are_neither_printed_nor_raised_in_any_thread() -> None:
    files = [ORDINARY["palette png with alpha of each colour"], ORDINARY["jpeg with corrupt exif"]] * 40
    barrier = threading.Barrier(4)

    def decode(content: bytes) -> torch.Tensor:
        barrier.wait()
        return load_image(content, "x", 32)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with ThreadPoolExecutor(4) as pool:
            single = [load_image(content, "x", 32) for content in files[:2]]
            several = list(pool.map(decode, files))
    assert caught == []
    assert all(torch.equal(pixels, single[index % 2]) for index, pixels in enumerate(several))
