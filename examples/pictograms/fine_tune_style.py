"""Fine-tune the shipped model on half of a drawing style that it has never seen, and ask it the other half.

python examples/pictograms/fine_tune_style.py [--recipe full|lit|layerwise] [--epochs 15] [--seed 0] [--json]

Both halves are of `tests/pictograms/unseen_style.webp`; no name of the second is in the first. The pictures of the
second are to be told by their names, and its names by their pictures, in six wordings that are averaged, as in the
model card.
"""

from __future__ import annotations

import argparse
import json
import tempfile

import keras
import numpy as np
from held_out import HeldOut, as_data_uri, read_held_out

from tf_clip import CLIPModel, CLIPProcessor, class_embeddings, embed_images, retrieval_metrics, retrieval_report, train
from tf_clip.training.data import Augmentation, ListedPairs, TrainingData
from tf_clip.training.recipes import RECIPES


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--recipe", choices=sorted(RECIPES), default="full")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--learning-rate", type=float, default=5e-5)
    parser.add_argument("--pictures", type=int, help="of both halves together; all unless given")
    parser.add_argument("--seed", type=int, default=0, help="decides the halves, and what is drawn in training")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    keras.utils.set_random_seed(args.seed)
    model, processor = CLIPModel.from_pretrained("pictogram-clip"), CLIPProcessor.from_pretrained("pictogram-clip")
    style = read_held_out("unseen_style")
    order = np.random.default_rng(args.seed).permutation(len(style.pictures))[: args.pictures]
    first, second = np.array_split(order, 2)
    before = scores(model, processor, style, second)
    augment = Augmentation(scale=(0.7, 1.0))
    data = TrainingData(half(style, first), processor, batch_size=args.batch_size, augment=augment, seed=args.seed)
    recipe = RECIPES[args.recipe](learning_rate=args.learning_rate)
    recipe.compile(model, steps=args.epochs * data.steps_per_epoch)
    with tempfile.TemporaryDirectory() as folder:
        train(model, data, epochs=args.epochs, folder=folder, callbacks=[] if args.json else [Losses()])
    after = scores(model, processor, style, second)
    if args.json:
        print(json.dumps({"trained": len(first), "asked": len(second), "before": before, "after": after}))
        return
    print(f"Trained on {len(first)} pictures ({args.recipe}), asked {len(second)} others")
    for question in before:
        for name in ("R@1", "R@5", "MRR"):
            print(f"{question}, {name}: {before[question][name]:.3f} before, {after[question][name]:.3f} after")


class Losses(keras.callbacks.Callback):
    """Prints the loss of each epoch."""

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Prints it."""
        print(f"epoch {epoch + 1}: loss {(logs or {})['loss']:.3f}", flush=True)


def half(style: HeldOut, rows: np.ndarray) -> ListedPairs:
    """Returns pictures with their names in every wording, of which one is drawn each time."""
    captions = [[text.replace("{}", style.names[style.targets[row]]) for text in style.templates] for row in rows]
    return ListedPairs([as_data_uri(style.pictures[row]) for row in rows], captions)


def scores(model: CLIPModel, processor: CLIPProcessor, style: HeldOut, rows: np.ndarray) -> dict[str, dict[str, float]]:
    """Asks for the names of pictures and the pictures of names, within a half and among the names of both."""
    images = embed_images(model, processor, list(style.pictures[rows]), batch_size=256).embeds
    names = class_embeddings(model, processor, style.names, style.templates)
    report = retrieval_report(images, names[style.targets[rows]], np.arange(len(rows)))
    return {
        "picture to name": report.image_to_text,
        "name to picture": report.text_to_image,
        "picture to name, among all": retrieval_metrics(images @ names.T, style.targets[rows]),
    }


if __name__ == "__main__":
    main()
