"""Reading images nobody has checked: size limits first, then decoding, and one clear sentence when it fails."""

from __future__ import annotations

import hashlib
import io
import stat
from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageOps

from liit.data.sample import ImageRef

MAX_PIXELS = 1 << 26
"""Largest image decoded (67 million pixels, 192 MiB as RGB); a larger one is taken for a decompression bomb."""

MAX_BYTES = 1 << 28
"""Largest image file read (256 MiB)."""

# Raster formats only. Pillow also opens formats that start other programs (EPS starts Ghostscript) or that nobody
# keeps training images in; what is not decoded cannot be attacked.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "MPO", "JPEG2000", "TGA", "ICO")

_CACHED_IMAGES = 1 << 16
_UNKNOWN = ("", "")


class ImageError(Exception):
    """An image that cannot be used: `reason` is the code kept in the quarantine, `detail` a sentence."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


def read_bytes(path: str | Path) -> bytes:
    """Read an image file.

    Args:
        path: The file.

    Returns:
        Its bytes.

    Raises:
        ImageError: It is missing, not a regular file, empty, larger than `MAX_BYTES`, or cannot be read.
    """
    try:
        info = Path(path).stat()
        if not stat.S_ISREG(info.st_mode):  # a named pipe or a device would block or never end
            raise ImageError("image-not-a-file", f"{str(path)!r} is not a regular file")
        if info.st_size > MAX_BYTES:
            raise ImageError("image-too-large", f"{str(path)!r} has {info.st_size} bytes, more than {MAX_BYTES}")
        data = Path(path).read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ImageError("image-missing", f"{str(path)!r} does not exist") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the path
        raise ImageError("image-unreadable", f"{str(path)!r} cannot be read: {error}") from error
    if not data:
        raise ImageError("image-undecodable", f"{str(path)!r} is empty")
    return data


def decode(data: bytes) -> Image.Image:
    """Decode an encoded image into RGB.

    The first frame of an animation is taken, the EXIF orientation is applied, 16-bit greys are scaled to 8 bits, and
    transparent parts are laid on white (dropping alpha, as `convert("RGB")` does, turns line art on a transparent
    ground into black on black).

    Args:
        data: A whole image file.

    Returns:
        The image, mode RGB.

    Raises:
        ImageError: More pixels than `MAX_PIXELS`, an unknown format, or damaged data.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise ImageError("image-too-large", f"{width} x {height} pixels are more than {MAX_PIXELS}")
            image.load()
            return _to_rgb(ImageOps.exif_transpose(image))  # which makes a copy in any case
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError("image-too-large", f"more pixels than {MAX_PIXELS}: {error}") from error
    except Exception as error:  # damaged files make decoders raise nearly anything: SyntaxError, struct.error, ...
        raise ImageError("image-undecodable", f"not a readable image: {_one_line(error)}") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode == "I":
        import numpy as np

        grey = np.asarray(image).astype(np.int64)
        return Image.fromarray((grey >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        ground = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(ground, rgba).convert("RGB")
    return image.convert("RGB") if image.mode != "RGB" else image


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


class ImageChecker:
    """Hashes and decodes images once each, however many rows share them; the last 65 536 answers are kept.

    Several threads may use it. One lives for one ingest call, so a file replaced between two calls is read again.
    """

    def __init__(self) -> None:
        self._file = lru_cache(maxsize=_CACHED_IMAGES)(_check_file)
        # Only the verdict is cached, by hash: caching on the bytes would keep every image in memory.
        self._by_hash: dict[str, tuple[str, str] | None] = {}

    def from_file(self, path: str) -> ImageRef:
        """Check the image at an absolute path.

        Args:
            path: The file.

        Returns:
            A reference to it.

        Raises:
            ImageError: The image cannot be used.
        """
        found = self._file(path)
        if isinstance(found, ImageRef):
            return found
        raise ImageError(*found)

    def from_bytes(self, data: bytes, name: str = "") -> ImageRef:
        """Check an image given by value.

        Args:
            data: The encoded bytes.
            name: What the user calls it.

        Returns:
            The image, held by value.

        Raises:
            ImageError: The image cannot be used.
        """
        if len(data) > MAX_BYTES:
            raise ImageError("image-too-large", f"embedded image has {len(data)} bytes, more than {MAX_BYTES}")
        sha256 = hashlib.sha256(data).hexdigest()
        verdict = self._by_hash.get(sha256, _UNKNOWN)
        if verdict is _UNKNOWN:
            if len(self._by_hash) >= _CACHED_IMAGES:
                self._by_hash.clear()  # several threads may do this at once: each has its own verdict
            verdict = self._by_hash[sha256] = _verdict(data)
        if verdict is not None:
            raise ImageError(*verdict)
        return ImageRef(path=name, sha256=sha256, data=data)


def _verdict(data: bytes) -> tuple[str, str] | None:
    try:
        decode(data)
    except ImageError as problem:
        return problem.reason, problem.detail
    return None


def _check_file(path: str) -> ImageRef | tuple[str, str]:
    # Failures are returned, not raised, because lru_cache forgets exceptions: a bad image shared by many rows
    # would be read once per row.
    try:
        data = read_bytes(path)
        decode(data)
    except ImageError as problem:
        detail = problem.detail if repr(path) in problem.detail else f"{path!r}: {problem.detail}"
        return problem.reason, detail
    return ImageRef(path=path, sha256=hashlib.sha256(data).hexdigest())


def suffix_of(data: bytes) -> str:
    """The suffix that a file with this image should have, such as `.png`."""
    with Image.open(io.BytesIO(data)) as image:
        return {"JPEG": ".jpg", "TIFF": ".tif", "JPEG2000": ".jp2", "MPO": ".jpg"}.get(
            image.format or "", f".{(image.format or 'png').lower()}"
        )
