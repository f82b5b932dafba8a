"""Trains a new classifier on CLIP's image tower from folders of images, one folder a class, and saves it.

python examples/image_classifier.py OUT FOLDER FOLDER ...
"""

import sys
from pathlib import Path

import keras
import numpy as np

from tf_clip import CLIPForImageClassification, CLIPProcessor

CHECKPOINT = "pictogram-clip"  # or a folder, or a Hub id

out, *folders = map(Path, sys.argv[1:])
images = [(path, label) for label, folder in enumerate(folders) for path in sorted(folder.glob("*.png"))]
paths, labels = zip(*images, strict=True)

processor = CLIPProcessor.from_pretrained(CHECKPOINT)
pixel_values = processor(images=list(paths), return_tensors="np")["pixel_values"]

model = CLIPForImageClassification.from_pretrained(CHECKPOINT, num_labels=len(folders))
model.image_encoder.trainable = False  # a few images are enough for the classifier alone
model.compile(keras.optimizers.Adam(1e-2))
model.fit(pixel_values, np.array(labels), epochs=30, verbose=0)

chosen = model.predict(pixel_values, verbose=0)["logits"].argmax(axis=1)
for path, label in zip(paths, chosen, strict=True):
    print(f"{path.name}: {folders[label].name}")
model.save_pretrained(out)
processor.save_pretrained(out)
