"""How many tokens an image takes, and which: asked of the model's own processor, once per size."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO

from liit.data.sample import ImageRef
from liit.errors import InputError
from liit.model.remembered import Remembered
from liit.model.vlm import VLM

SIZES_BYTES = 4 << 20  # of remembered sizes of images, some 16 000
SIZE_BYTES = 256  # of one, with the image's hash
EXPANSIONS_BYTES = 16 << 20  # of remembered expansions, one per size
EXIF_ORIENTATION = 0x0112


@dataclass(frozen=True, slots=True)
class Expansion:
    """What stands in the text for one image.

    Attributes:
        text: placeholders, with the tokens that the family puts around and between them.
        features: number of vision features the model puts in, one per placeholder.
    """

    text: str
    features: int


class ImageTokens:
    """Expansions of images, remembered by size, the latest ones only.

    Some families (LLaVA-OneVision) cut an image into tiles only when it is the only one of its row.
    """

    def __init__(self, vlm: VLM) -> None:
        self.processor = vlm.processor
        self.placeholder = str(vlm.tokenizer.convert_ids_to_tokens(vlm.image_token_id))
        self.counts_images = "batch_num_images" in vlm.processor.image_processor.model_input_names
        self._known: Remembered[tuple[int, int, bool], Expansion] = Remembered(EXPANSIONS_BYTES)
        self._sizes: Remembered[str, tuple[int, int]] = Remembered(SIZES_BYTES)

    def together(self, images: int) -> bool:
        """Whether images of a row with this many are treated otherwise than a single one."""
        return self.counts_images and images > 1

    def expansion(self, image: ImageRef, *, together: bool = False) -> Expansion:
        """What an image becomes.

        Args:
            image: only its size matters.
            together: see `together`.

        Raises:
            InputError: an image that is gone.
            ValueError: the processor refuses an image of this size.
        """
        size = self._sizes.get(image.sha256)
        if size is None:
            size = image_size(image)
            self._sizes.put(image.sha256, size, SIZE_BYTES)
        key = (*size, together)
        found = self._known.get(key)
        if found is None:
            found = self._expand(size, together)
            self._known.put(key, found, len(found.text) + SIZE_BYTES)
        return found

    def _expand(self, size: tuple[int, int], together: bool) -> Expansion:
        """Ask the processor, with blank images."""
        from PIL import Image

        blank = [Image.new("RGB", size)] * (2 if together else 1)
        out = self.processor(
            images=[blank],
            text=[self.processor.image_token * len(blank)],
            images_kwargs={"return_tensors": "pt"},
            return_text_replacement_offsets=True,
        )
        text = str(out["text_replacement_offsets"][0][0]["replacement"])
        return Expansion(text, text.count(self.placeholder))


def image_size(image: ImageRef) -> tuple[int, int]:
    """Width and height from the file's header, without decoding the pixels."""
    from PIL import Image

    try:
        with Image.open(BytesIO(image.read()) if image.held else image.path) as opened:
            width, height = opened.size
            turned = opened.getexif().get(EXIF_ORIENTATION, 1) in (5, 6, 7, 8)
    except OSError as error:
        raise InputError(
            f"image {image.path!r} cannot be read any more ({error}); put the original file back or remove its rows"
        ) from error
    return (height, width) if turned else (width, height)
