"""`Processor`: images and strings of any kind to what a two-tower model takes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tf_clip.checkpoints import hub
from tf_clip.preprocessing.images.image_processor import ImageProcessor
from tf_clip.preprocessing.images.opening import open_image
from tf_clip.preprocessing.return_kinds import converter
from tf_clip.preprocessing.text.tokenizer import BytePairTokenizer

if TYPE_CHECKING:
    from typing_extensions import Self


class Processor:
    """Wraps a tokenizer and an image processor, and opens image files.

    A family's processor is a subclass that names its own `tokenizer_class` and `image_processor_class`.

    Args:
        image_processor: prepares images.
        tokenizer: turns strings into ids.

    Call arguments:
        text: see `BytePairTokenizer`; or None.
        images: an image or a list of them: a path or a file's bytes (both turned upright by their
            orientation tag), a PIL image or uint8 pixels (both taken as they lie); or None.
        padding, truncation, max_length: see `BytePairTokenizer`.
        return_tensors: `"tf"`, `"np"`, `"jax"` or `"pt"`.

    Returns:
        A dictionary of what the tokenizer returns when there is text, and `pixel_values` when there are images: the
        keyword arguments of the model.

    Raises:
        FileNotFoundError: a path does not exist.
        ImportError: the library that `return_tensors` names is not installed.
        TypeError: an argument is of another kind.
        ValueError: nothing is given, or a file is not a whole image of a safe size.

    Example:
        >>> processor = CLIPProcessor.from_pretrained("pictogram-clip")
        >>> sorted(processor(text=["a cat"], images="examples/images/owl.png"))
        ['attention_mask', 'input_ids', 'pixel_values']

    Source: transformers' processors. Differences: tensors are TensorFlow's and channels last by default.
    """

    tokenizer_class: ClassVar[type[BytePairTokenizer]] = BytePairTokenizer
    image_processor_class: ClassVar[type[ImageProcessor]] = ImageProcessor

    def __init__(self, image_processor: ImageProcessor, tokenizer: BytePairTokenizer) -> None:
        self.image_processor = image_processor
        self.tokenizer = tokenizer

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path, *, revision: str | None = None) -> Self:
        """Reads a checkpoint's tokenizer and preprocessor files.

        Args:
            name_or_path: a shipped name, a local folder or a Hub id.
            revision: branch, tag or commit on the Hub.

        Raises:
            FileNotFoundError: there is no such checkpoint, or a file of it is missing.
            ValueError: a file is broken.
        """
        return cls.from_folder(hub.resolve_folder(name_or_path, revision))

    @classmethod
    def from_folder(cls, folder: Path) -> Self:
        """Reads the tokenizer and preprocessor files of a local folder; see `from_pretrained`."""
        return cls(cls.image_processor_class.from_folder(folder), cls.tokenizer_class.from_folder(folder))

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes the tokenizer's and the preprocessor's files into a folder."""
        self.image_processor.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    def __call__(
        self,
        text: Any = None,
        images: Any = None,
        padding: bool | str | None = None,
        truncation: bool = True,
        max_length: int | None = None,
        return_tensors: str = "tf",
    ) -> dict[str, Any]:
        """Prepares both; see the class."""
        if text is None and images is None:
            raise ValueError("`text` or `images` must be given. Received neither. Pass at least one.")
        convert = dict if return_tensors == "tf" else converter(return_tensors)
        inputs: dict[str, Any] = {}
        if text is not None:
            inputs.update(self.tokenizer(text, padding, truncation, max_length))
        if images is not None:
            inputs.update(self.image_processor(self._opened(images)))
        return convert(inputs)

    def _opened(self, images: Any) -> Any:
        """Reads files, of more formats than the graph knows; all else passes as it is."""
        if not isinstance(images, Sequence) or isinstance(images, (str, bytes)):
            return self._opened([images])[0] if isinstance(images, (str, Path, bytes)) else images
        apply_exif = self.image_processor.apply_exif
        return [
            open_image(image, apply_exif=apply_exif, index=index) if isinstance(image, (str, Path, bytes)) else image
            for index, image in enumerate(images)
        ]

    def batch_decode(self, ids: Any, skip_special_tokens: bool = False) -> list[str]:
        """Turns rows of ids back into strings; see `BytePairTokenizer.decode`."""
        return self.tokenizer.batch_decode(ids, skip_special_tokens=skip_special_tokens)
