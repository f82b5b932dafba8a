"""Teach the text tower alone to read out a locked image tower (LiT): `fine_tune.py` with another recipe.

python examples/lit.py pairs.csv OUT

The two lines that differ are marked. The image tower keeps what it knows, and takes no memory for gradients.
"""

import sys
from pathlib import Path

from tf_clip import Augmentation, CLIPModel, CLIPProcessor, TrainingData, read_pairs, train
from tf_clip.training.recipes import lit  # differs

CHECKPOINT = "pictogram-clip"  # or a folder, or a Hub id
EPOCHS, BATCH_SIZE = 4, 5  # with thousands of pairs: 10 and 256

source, out = sys.argv[1], Path(sys.argv[2])
model = CLIPModel.from_pretrained(CHECKPOINT)
processor = CLIPProcessor.from_pretrained(CHECKPOINT)

data = TrainingData(read_pairs(source), processor, batch_size=BATCH_SIZE, augment=Augmentation())
lit(learning_rate=1e-4).compile(model, steps=EPOCHS * data.steps_per_epoch)  # differs
run = train(model, data, epochs=EPOCHS, folder=out / "run", resume=True)

model.save_pretrained(out)
processor.save_pretrained(out)
for row in run.history:
    print(f"epoch {row['epoch']}: loss {row['loss']:.3f}, accuracy in batches of {BATCH_SIZE} {row['accuracy']:.2f}")
for row in data.skipped:
    print(f"left out {row.where}: {row.reason}")
