"""What every library is asked to do, and how many operations that takes."""

from __future__ import annotations

from dataclasses import dataclass

from library import MATMUL_SIDE

from tf_clip.families import cost
from tf_clip.families.clip.config import CLIPConfig


@dataclass(frozen=True)
class Work:
    """One thing to do.

    Args:
        kind: the name of the method of `library.Library` that prepares it.
        images: how many images at once, 0 where there are none.
        texts: how many texts at once.
    """

    kind: str
    images: int = 0
    texts: int = 0

    @property
    def name(self) -> str:
        """The work as one word, for records: `joint-4x16`."""
        sizes = [str(size) for size in (self.images, self.texts) if size]
        return "-".join([self.kind, *(["x".join(sizes)] if sizes else [])])

    @property
    def column(self) -> str:
        """The sizes alone, for the head of a table."""
        return " x ".join(str(size) for size in (self.images, self.texts) if size)


ONE_SIDE = (
    *(Work("image", images=count) for count in (1, 4, 8, 32)),
    *(Work("text", texts=count) for count in (1, 16, 64)),
)
JOINT = tuple(Work("joint", images, texts) for images in (1, 4, 16, 32) for texts in (4, 16, 64))
END_TO_END = (Work("end_to_end", 1, 4), Work("end_to_end", 8, 16), Work("end_to_end", 32, 16))
ZERO_SHOT = tuple(Work("zero_shot", images=count) for count in (1, 8, 32))
TRAINING = (Work("training", 8, 8),)
ALL = (*ONE_SIDE, *END_TO_END, *ZERO_SHOT, *JOINT, *TRAINING)
FEW = (Work("image", images=1), Work("image", images=8), Work("text", texts=16))
QUICK = (*FEW, Work("joint", 4, 4), Work("end_to_end", 1, 4), Work("zero_shot", images=1), Work("training", 4, 4))
TRIED = tuple(work for work in ONE_SIDE if work.images or work.texts == 1)
SETS = {"all": ALL, "few": FEW, "quick": QUICK, "tried": TRIED}

CLASSES = 1000
"""Of zero-shot classification; their embeddings are there before."""
MATMUL_OPERATIONS = 2 * MATMUL_SIDE**3

TITLES = {
    "image": "Images to embeddings",
    "text": "Captions to embeddings",
    "end_to_end": "From JPEG bytes and strings to similarities",
    "zero_shot": f"Images to probabilities of {CLASSES} classes, whose texts were embedded before",
    "joint": "Images and captions to similarities",
    "training": "One training step with AdamW",
}
COLUMNS = {
    "image": "images",
    "text": "captions",
    "end_to_end": "files x strings",
    "zero_shot": "images",
    "joint": "images x captions",
    "training": "images x captions",
}


def operations(work: Work, config: CLIPConfig, lengths: list[int]) -> int | None:
    """Returns how many operations a work takes at least, or None where the models' part is not all of it.

    Args:
        work: what is done.
        config: of the model.
        lengths: of the captions, in tokens. Each is counted at its own, whatever a library pads it to.
    """
    if work.kind not in ("image", "text", "joint"):
        return None
    texts = sum(cost.operations_per_text(config, length) for length in lengths[: work.texts])
    return work.images * cost.operations_per_image(config) + texts
