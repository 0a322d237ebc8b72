from __future__ import annotations

import hashlib
import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from liit.data.images import MAX_PIXELS, ImageChecker, ImageError, decode, read_bytes
from liit.data.paths import ImageRoot
from liit.data.sample import ImageRef
from liit.errors import InputError


def encoded(image: Image.Image, format: str = "PNG") -> bytes:
    out = io.BytesIO()
    image.save(out, format)
    return out.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and has no pixels: what a decompression bomb starts with."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = (body, b"IDAT" + zlib.compress(b""))
    lengths = (struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(lengths)


def test_every_mode_becomes_rgb() -> None:
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        image = decode(encoded(Image.new(mode, (4, 3))))
        assert (image.mode, image.size) == ("RGB", (4, 3)), mode


def test_transparent_ground_becomes_white_and_not_black() -> None:
    image = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    image.putpixel((1, 0), (255, 0, 0, 255))
    assert list(np.asarray(decode(encoded(image))).reshape(-1, 3).tolist()) == [[255, 255, 255], [255, 0, 0]]


def test_sixteen_bit_grey_is_scaled_and_not_clipped() -> None:
    grey = Image.fromarray(np.array([[0, 0x8000, 0xFFFF]], dtype=np.uint16))
    assert np.asarray(decode(encoded(grey)))[0, :, 0].tolist() == [0, 128, 255]


def test_exif_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    out = io.BytesIO()
    Image.new("RGB", (4, 2)).save(out, "JPEG", exif=exif)
    assert decode(out.getvalue()).size == (2, 4)


def test_a_bomb_is_refused_before_its_pixels_are_decoded() -> None:
    side = int(MAX_PIXELS**0.5) + 1
    for width, height in ((side, side), (60000, 60000)):
        with pytest.raises(ImageError) as caught:
            decode(png_header(width, height))
        assert caught.value.reason == "image-too-large"


def test_damaged_and_foreign_data_is_undecodable() -> None:
    good = encoded(Image.new("RGB", (64, 64), "red"))
    for data in (b"", b"no image", good[: len(good) // 2], b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"):
        with pytest.raises(ImageError) as caught:
            decode(data)
        assert caught.value.reason == "image-undecodable"


def test_a_pipe_and_a_folder_are_refused_instead_of_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path / "pipe.png", tmp_path):
        with pytest.raises(ImageError) as caught:
            read_bytes(path)
        assert caught.value.reason == "image-not-a-file"


def test_a_shared_image_is_read_once(tmp_path: Path, make_image, monkeypatch: pytest.MonkeyPatch) -> None:
    path, bad = str(make_image(tmp_path / "a.png")), tmp_path / "bad.png"
    bad.write_bytes(b"broken")
    reads: list[str] = []
    monkeypatch.setattr("liit.data.images.read_bytes", lambda path: reads.append(path) or read_bytes(path))
    checker = ImageChecker()
    first = checker.from_file(path)
    assert checker.from_file(path) is first
    assert first.sha256 == hashlib.sha256(Path(path).read_bytes()).hexdigest()
    for _ in range(2):
        with pytest.raises(ImageError, match=r"bad\.png"):
            checker.from_file(str(bad))
    assert reads == [path, str(bad)]


def test_open_says_when_a_file_is_gone_or_changed(tmp_path: Path, make_image) -> None:
    path = make_image(tmp_path / "a.png")
    ref = ImageChecker().from_file(str(path))
    assert ref.open().size == (8, 8)
    make_image(path, seed=1)
    with pytest.raises(InputError, match="has changed since"):
        ref.open()
    path.unlink()
    with pytest.raises(InputError, match="does not exist"):
        ref.open()


def test_an_image_held_by_value_needs_no_file() -> None:
    data = encoded(Image.new("RGB", (3, 3), "red"))
    assert ImageRef("", hashlib.sha256(data).hexdigest(), data).open().getpixel((0, 0)) == (255, 0, 0)


@pytest.fixture
def root(tmp_path: Path, make_image) -> ImageRoot:
    make_image(tmp_path / "secret.png")
    make_image(tmp_path / "root-2" / "a.png")  # a sibling whose name starts like the root
    make_image(tmp_path / "root" / "in" / "a.png")
    (tmp_path / "root" / "link.png").symlink_to(tmp_path / "secret.png")
    (tmp_path / "root" / "folder").symlink_to(tmp_path)
    (tmp_path / "root" / "inside.png").symlink_to(tmp_path / "root" / "in" / "a.png")
    return ImageRoot(tmp_path / "root")


@pytest.mark.parametrize(
    "path", ["../secret.png", "in/../../secret.png", "link.png", "folder/secret.png", "../root-2/a.png"]
)
def test_paths_that_leave_the_root_are_refused_unless_allowed(root: ImageRoot, path: str) -> None:
    with pytest.raises(ImageError) as caught:
        root.resolve(path)
    assert caught.value.reason == "image-outside-root"
    assert Path(ImageRoot(Path(root.root), allow_outside=True).resolve(path)).is_file()


def test_absolute_paths_are_refused_only_outside(root: ImageRoot) -> None:
    with pytest.raises(ImageError):
        root.resolve("/etc/passwd")
    inside = f"{root.root}/in/a.png"
    assert root.resolve(inside) == root.resolve("in/../in/a.png") == root.resolve("inside.png") == inside


@pytest.mark.parametrize("path", ["", "  ", "a\0b", "http://host/a.png", "x" * 5000])
def test_unusable_paths_are_named(root: ImageRoot, path: str) -> None:
    with pytest.raises(ImageError):
        ImageChecker().from_file(root.resolve(path))
