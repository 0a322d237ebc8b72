"""How many tokens an image takes, and which: asked of the model's own processor, once per size."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO

from liit.data.sample import ImageRef
from liit.errors import InputError
from liit.model.vlm import VLM

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
    """Expansions of images, remembered by size.

    Some families (LLaVA-OneVision) cut an image into tiles only when it is the only one of its row.
    """

    def __init__(self, vlm: VLM) -> None:
        self.processor = vlm.processor
        self.placeholder = str(vlm.tokenizer.convert_ids_to_tokens(vlm.image_token_id))
        self.counts_images = "batch_num_images" in vlm.processor.image_processor.model_input_names
        self._known: dict[tuple[int, int, bool], Expansion] = {}
        self._sizes: dict[str, tuple[int, int]] = {}

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
        from PIL import Image

        if image.sha256 not in self._sizes:
            self._sizes[image.sha256] = image_size(image)
        size = self._sizes[image.sha256]
        key = (*size, together)
        if key not in self._known:
            blank = [Image.new("RGB", size)] * (2 if together else 1)
            out = self.processor(
                images=[blank],
                text=[self.processor.image_token * len(blank)],
                images_kwargs={"return_tensors": "pt"},
                return_text_replacement_offsets=True,
            )
            text = str(out["text_replacement_offsets"][0][0]["replacement"])
            self._known[key] = Expansion(text, text.count(self.placeholder))
        return self._known[key]


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
