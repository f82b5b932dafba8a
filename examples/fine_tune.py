"""Train a CLIP further on images and captions of your own; stopped and started again, it goes on.

python examples/fine_tune.py pairs.csv OUT

`pairs.csv` has a line `image,caption`, and then a line for each caption; RSICD's captions of satellite images are
such a table once written as one. This is the base of the examples that train: `lit.py` and `linear_probe.py` mark
where they differ. `tf-clip train --data pairs.csv --output OUT` does the same and more.
"""

import sys
from pathlib import Path

from tf_clip import Augmentation, CLIPModel, CLIPProcessor, TrainingData, read_pairs, train
from tf_clip.training.recipes import full

CHECKPOINT = "pictogram-clip"  # or a folder, or a Hub id
EPOCHS, BATCH_SIZE = 4, 5  # with thousands of pairs: 10 and 256

source, out = sys.argv[1], Path(sys.argv[2])
model = CLIPModel.from_pretrained(CHECKPOINT)
processor = CLIPProcessor.from_pretrained(CHECKPOINT)

data = TrainingData(read_pairs(source), processor, batch_size=BATCH_SIZE, augment=Augmentation())
full(learning_rate=1e-5).compile(model, steps=EPOCHS * data.steps_per_epoch)
run = train(model, data, epochs=EPOCHS, folder=out / "run", resume=True)

model.save_pretrained(out)
processor.save_pretrained(out)
for row in run.history:
    print(f"epoch {row['epoch']}: loss {row['loss']:.3f}, accuracy in batches of {BATCH_SIZE} {row['accuracy']:.2f}")
for row in data.skipped:
    print(f"left out {row.where}: {row.reason}")
