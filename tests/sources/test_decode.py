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
