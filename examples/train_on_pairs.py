"""Train a CLIP on your own pictures and captions; killed and started again, it goes on.

    python examples/train_on_pairs.py --pairs pairs.csv --out MODEL

`pairs.csv` has a line `image,caption` and then one pair a line; pictures are looked for beside it.
The model starts from `--model` (the shipped one unless you name another) or, with `--from-config
FOLDER`, untrained from that folder's config.json.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import keras

from tf_clip import CLIPConfig, CLIPModel, CLIPProcessor, pairs_dataset


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pairs", type=Path, required=True, help="CSV file with columns image and caption")
    parser.add_argument("--out", type=Path, required=True, help="folder of the checkpoint, and of what resumes it")
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--model", default="pictogram-clip", help="shipped name, folder or Hub id to start from")
    start.add_argument("--from-config", type=Path, help="folder with config.json and tokenizer files; untrained")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--skip-bad", action="store_true", help="leave out pictures that cannot be read")
    args = parser.parse_args()

    source = args.from_config or args.model
    processor = CLIPProcessor.from_pretrained(source)
    if args.from_config:
        keras.utils.set_random_seed(0)
        model = CLIPModel(CLIPConfig.from_pretrained(args.from_config))
    else:
        model = CLIPModel.from_pretrained(args.model)
    paths, captions = read_pairs(args.pairs)
    dataset = pairs_dataset(paths, captions, processor, batch_size=args.batch_size, skip_bad=args.skip_bad)

    model.compile(keras.optimizers.AdamW(args.learning_rate, weight_decay=0.01))
    # Saves model, optimizer and epoch after each epoch, and starts from there when run again.
    backup = keras.callbacks.BackupAndRestore(args.out / "resume", delete_checkpoint=False)
    model.fit(dataset, epochs=args.epochs, callbacks=[backup], verbose=2)
    model.save_pretrained(args.out)
    processor.save_pretrained(args.out)
    result = model.evaluate(dataset, verbose=0, return_dict=True)
    print(f"accuracy in batches of {args.batch_size}: {result['accuracy']:.3f}; saved in {args.out}")


def read_pairs(path: Path) -> tuple[list[Path], list[str]]:
    """Reads the CSV file; pictures are looked for beside it."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not rows or not {"image", "caption"} <= set(rows[0]):
        raise SystemExit(f"{path} must have the columns image and caption, and at least one row.")
    return [path.parent / row["image"] for row in rows], [row["caption"] for row in rows]


if __name__ == "__main__":
    main()
