"""Fine-tune the shipped model on half of a drawing style that it has never seen, and ask it the other half.

python examples/pictograms/fine_tune_style.py [--locked text_encoder] [--epochs 10] [--share 0.5] [--seed 0] [--json]

Both halves are of `tests/pictograms/unseen_style.webp`; no name of the second is in the first. The images of the
second are to be told by their names, and its names by their images, in six wordings that are averaged, as in the
model card. The names' tower stays as it is, since names are not what is new; and the result is mixed half and half with
the start (WiSE-FT), since a thousand images also teach what holds for them alone.
"""

from __future__ import annotations

import argparse
import json
import tempfile

import keras
import numpy as np
from held_out import HeldOut, as_data_uri, read_held_out

from tf_clip import (
    CLIPModel,
    CLIPProcessor,
    ListedPairs,
    TrainingData,
    class_embeddings,
    embed_images,
    interpolate_weights,
    retrieval_metrics,
    retrieval_report,
    train,
)
from tf_clip.training.recipes import Recipe


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--locked", choices=["text_encoder", "image_encoder", "none"], default="text_encoder")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--share", type=float, default=0.5, help="of the tuned weights in the mixture; 1: not mixed")
    parser.add_argument("--images", type=int, help="of both halves together; all unless given")
    parser.add_argument("--seed", type=int, default=0, help="decides the halves, and what is drawn in training")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    keras.utils.set_random_seed(args.seed)
    start, model = (CLIPModel.from_pretrained("pictogram-clip") for _ in range(2))
    processor = CLIPProcessor.from_pretrained("pictogram-clip")
    style = read_held_out("unseen_style")
    order = np.random.default_rng(args.seed).permutation(len(style.images))[: args.images]
    first, second = np.array_split(order, 2)
    before = scores(start, processor, style, second)
    data = TrainingData(half(style, first), processor, batch_size=args.batch_size, seed=args.seed)
    locked = () if args.locked == "none" else (args.locked,)
    recipe = Recipe(learning_rate=args.learning_rate, weight_decay=0.0, locked=locked)
    recipe.compile(model, steps=args.epochs * data.steps_per_epoch)
    with tempfile.TemporaryDirectory() as folder:
        train(model, data, epochs=args.epochs, folder=folder, callbacks=[] if args.json else [Losses()])
    after = scores(interpolate_weights(start, model, args.share), processor, style, second)
    if args.json:
        print(json.dumps({"trained": len(first), "asked": len(second), "before": before, "after": after}))
        return
    print(f"Trained on {len(first)} images, asked {len(second)} others")
    for question in before:
        for name in ("R@1", "R@5", "MRR"):
            print(f"{question}, {name}: {before[question][name]:.3f} before, {after[question][name]:.3f} after")


class Losses(keras.callbacks.Callback):
    """Prints the loss of each epoch."""

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Prints it."""
        print(f"epoch {epoch + 1}: loss {(logs or {})['loss']:.3f}", flush=True)


def half(style: HeldOut, rows: np.ndarray) -> ListedPairs:
    """Returns images with their names in every wording, of which one is drawn each time."""
    captions = [[text.replace("{}", style.names[style.targets[row]]) for text in style.templates] for row in rows]
    return ListedPairs([as_data_uri(style.images[row]) for row in rows], captions)


def scores(model: CLIPModel, processor: CLIPProcessor, style: HeldOut, rows: np.ndarray) -> dict[str, dict[str, float]]:
    """Asks for the names of images and the images of names, within a half and among the names of both."""
    images = embed_images(model, processor, list(style.images[rows]), batch_size=256).embeds
    names = class_embeddings(model, processor, style.names, style.templates)
    report = retrieval_report(images, names[style.targets[rows]], np.arange(len(rows)))
    return {
        "image to name": report.image_to_text,
        "name to image": report.text_to_image,
        "image to name, among all": retrieval_metrics(images @ names.T, style.targets[rows]),
    }


if __name__ == "__main__":
    main()
