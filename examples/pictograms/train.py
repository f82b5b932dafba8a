"""Train a small CLIP on pictograms and their names, from nothing, with `model.fit`.

    python train.py --data DATA --out MODEL

Killed and started again, it goes on after the last whole epoch. See `README.md`.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

import keras
from captions import BOS, EOS, caption_variants, learn_vocabulary
from dataset import Pictograms, TrainingBatches
from evaluate import Question
from taught_clip import TaughtCLIP
from word_vectors import WordVectors

from tf_clip import (
    CLIPConfig,
    CLIPFeatureExtractorTF,
    CLIPImageEncoder,
    CLIPModel,
    CLIPProcessor,
    CLIPTextEncoder,
    CLIPTokenizer,
)

IMAGE_SIZE = 56
MAX_TEXT_LENGTH = 32
TRAINING_TEXT_LENGTH = 20
NUM_MERGES = 4000
SEED = 2026
STATE_FILE = "state.weights.h5"


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder that prepare.py has written")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder of the finished checkpoint and of what resumes it"
    )
    parser.add_argument("--epochs", type=int, default=22)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="at the end of the warm-up")
    parser.add_argument("--start-from", help="folder of a checkpoint to start from, made by this script")
    args = parser.parse_args()
    train(args.data, args.out, args.epochs, args.batch_size, args.learning_rate, args.start_from)


def train(
    data_folder: Path, out: Path, epochs: int, batch_size: int, learning_rate: float, start_from: str | None = None
) -> None:
    """Trains, keeps the epoch that does best on the validation splits, and writes it to `out`."""
    keras.utils.set_random_seed(SEED)
    data = Pictograms.read(data_folder)
    processor = make_processor(data, out, start_from)
    vectors = WordVectors.read(data_folder)
    batches = TrainingBatches(data, processor.tokenizer, batch_size, TRAINING_TEXT_LENGTH, IMAGE_SIZE, vectors, SEED)
    history = read_history(out)
    model = make_model(processor.tokenizer, vectors.width)
    if start_from:
        model.text_encoder.set_weights(CLIPTextEncoder.from_pretrained(start_from).get_weights())
        model.image_encoder.set_weights(CLIPImageEncoder.from_pretrained(start_from).get_weights())
    model.compile(make_optimizer(learning_rate, epochs * batches.steps), jit_compile=True)
    if history:
        model.optimizer.build(model.trainable_variables)
        model.load_weights(out / "resume" / STATE_FILE)  # the optimizer's state is in it
        print(f"Going on after epoch {len(history)} of {epochs}.")

    for epoch in range(len(history), epochs):
        result = model.fit(batches.epoch(epoch), initial_epoch=epoch, epochs=epoch + 1)
        scores = {
            "loss": result.history["loss"][0],
            **{split: Question(model, processor, data, split).score()["R@1"] for split in ("val_style", "val_concept")},
        }
        print(f"epoch {epoch + 1}: " + ", ".join(f"{name} {value:.4f}" for name, value in scores.items()), flush=True)
        best = max((_merit(past) for past in history), default=-1.0)
        if _merit(scores) >= best:
            model.save_pretrained(out, dtype="float16")
            processor.save_pretrained(out)
        history.append(scores)
        save_progress(model, history, out)


def _merit(scores: dict[str, float]) -> float:
    return (scores["val_style"] + scores["val_concept"]) / 2


def make_processor(data: Pictograms, out: Path, start_from: str | None) -> CLIPProcessor:
    """Learns the vocabulary from the training captions, or reads the one learned before."""
    images = CLIPFeatureExtractorTF(size=IMAGE_SIZE, crop_size=IMAGE_SIZE)
    folder = out / "resume"
    if start_from:
        return CLIPProcessor(images, CLIPTokenizer.from_pretrained(start_from))
    if (folder / "vocab.json").is_file():
        return CLIPProcessor(images, CLIPTokenizer.from_pretrained(folder))
    generator = random.Random(SEED)
    captions = (text for row in data.training_rows() for text in caption_variants(row, 4, generator))
    vocabulary, merges = learn_vocabulary(captions, NUM_MERGES)
    tokenizer = CLIPTokenizer(vocabulary, merges, model_max_length=MAX_TEXT_LENGTH, bos_token=BOS, eos_token=EOS)
    tokenizer.save_pretrained(folder)
    return CLIPProcessor(images, tokenizer)


def make_model(tokenizer: CLIPTokenizer, vector_width: int) -> TaughtCLIP:
    """Returns an untrained model of about 4 million parameters."""
    text = {
        "vocab_size": tokenizer.vocab_size,
        "hidden_size": 128,
        "intermediate_size": 512,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "max_position_embeddings": MAX_TEXT_LENGTH,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = {
        "hidden_size": 192,
        "intermediate_size": 768,
        "num_hidden_layers": 6,
        "num_attention_heads": 3,
        "image_size": IMAGE_SIZE,
        "patch_size": 8,
    }
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=128)
    return TaughtCLIP(config, vector_width)


def make_optimizer(learning_rate: float, steps: int) -> keras.optimizers.Optimizer:
    """Returns AdamW on a cosine schedule with warm-up; norms, biases and the temperature do not decay."""
    warmup = min(500, steps // 10)
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, steps - warmup, warmup_target=learning_rate, warmup_steps=warmup
    )
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=0.1, beta_2=0.98, epsilon=1e-6, global_clipnorm=1.0)
    optimizer.exclude_from_weight_decay(var_names=["bias", "beta", "gamma", "logit_scale", "class_embedding"])
    return optimizer


def read_history(out: Path) -> list[dict[str, float]]:
    """Returns the scores of the epochs done so far."""
    path = out / "resume" / "history.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []


def save_progress(model: CLIPModel, history: list[dict[str, float]], out: Path) -> None:
    """Writes what the next start needs; a kill in between leaves the epoch before."""
    folder = out / "resume"
    folder.mkdir(parents=True, exist_ok=True)
    model.save_weights(folder / f"next-{STATE_FILE}")
    (folder / f"next-{STATE_FILE}").replace(folder / STATE_FILE)
    (folder / "history.json").write_text(json.dumps(history, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
