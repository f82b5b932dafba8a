"""Fine-tune the shipped model on half of a drawing style that it has never seen, and ask it the other half.

python examples/pictograms/fine_tune_style.py [--recipe full|lit|layerwise] [--epochs 12] [--json]

Both halves are of `tests/pictograms/unseen_style.webp`. A picture is to be told by its name among all names of both
halves, in six wordings that are averaged, as in the model card. No name of the second half is in the first.
"""

from __future__ import annotations

import argparse
import json
import tempfile

import keras
import numpy as np
from held_out import HeldOut, as_data_uri, read_held_out

from tf_clip import CLIPModel, CLIPProcessor, class_embeddings, embed_images, retrieval_metrics, train
from tf_clip.training.augmentation import Augmentation
from tf_clip.training.pairs import ListedPairs
from tf_clip.training.recipes import RECIPES
from tf_clip.training.training_data import TrainingData

SEED = 0


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--recipe", choices=sorted(RECIPES), default="full")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    keras.utils.set_random_seed(SEED)
    model, processor = CLIPModel.from_pretrained("pictogram-clip"), CLIPProcessor.from_pretrained("pictogram-clip")
    style = read_held_out("unseen_style")
    first, second = np.array_split(np.random.default_rng(SEED).permutation(len(style.pictures)), 2)
    before = score(model, processor, style, second)
    data = TrainingData(
        half(style, first), processor, batch_size=args.batch_size, augment=Augmentation(scale=(0.7, 1.0)), seed=SEED
    )
    recipe = RECIPES[args.recipe](learning_rate=args.learning_rate)
    recipe.compile(model, steps=args.epochs * data.steps_per_epoch)
    with tempfile.TemporaryDirectory() as folder:
        train(model, data, epochs=args.epochs, folder=folder, callbacks=[] if args.json else [Losses()])
    after = score(model, processor, style, second)
    result = {"recipe": args.recipe, "trained on": len(first), "asked": len(second), "before": before, "after": after}
    if args.json:
        print(json.dumps(result))
        return
    print(
        f"Trained on {len(first)} pictures ({args.recipe}), asked {len(second)} others among {len(style.names)} names"
    )
    for name in ("R@1", "R@5", "R@10", "MRR"):
        print(f"{name:<5} before {before[name]:.3f}  after {after[name]:.3f}")


class Losses(keras.callbacks.Callback):
    """Prints the loss of each epoch."""

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Prints it."""
        print(f"epoch {epoch + 1}: loss {(logs or {})['loss']:.3f}", flush=True)


def half(style: HeldOut, rows: np.ndarray) -> ListedPairs:
    """Returns pictures with their names in every wording, of which one is drawn each time."""
    captions = [[text.replace("{}", style.names[style.targets[row]]) for text in style.templates] for row in rows]
    return ListedPairs([as_data_uri(style.pictures[row]) for row in rows], captions)


def score(model: CLIPModel, processor: CLIPProcessor, style: HeldOut, rows: np.ndarray) -> dict[str, float]:
    """Asks for the names of pictures, among those of all."""
    images = embed_images(model, processor, list(style.pictures[rows]), batch_size=256).embeds
    texts = class_embeddings(model, processor, style.names, style.templates)
    metrics = retrieval_metrics(images @ texts.T, style.targets[rows])
    return {name: round(value, 4) for name, value in metrics.items()}


if __name__ == "__main__":
    main()
