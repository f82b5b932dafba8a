"""Classify images by a linear probe of a frozen CLIP: `fine_tune.py` with classes in place of captions.

python examples/linear_probe.py FOLDER OUT

`FOLDER` has a folder of images for each class. What differs is marked: nothing of the model is trained, its features
are computed once, and a logistic regression is fitted on them. `tf-clip train --recipe probe` does the same and more.
Needs the extra `train`.
"""

import sys
from pathlib import Path

import numpy as np

from tf_clip import CLIPModel, CLIPProcessor, image_features, linear_probe

CHECKPOINT = "pictogram-clip"  # or a folder, or a Hub id

source, out = Path(sys.argv[1]), Path(sys.argv[2])
model = CLIPModel.from_pretrained(CHECKPOINT)
processor = CLIPProcessor.from_pretrained(CHECKPOINT)

classes = sorted(folder.name for folder in source.iterdir())  # differs, as does all that follows
paths = [path for name in classes for path in sorted((source / name).iterdir())]
targets = np.array([classes.index(path.parent.name) for path in paths])
features = image_features(model, processor, paths, "patch_mean").values
kept_back = np.arange(len(paths)) % 4 == 3  # every fourth image chooses the strength of the regularization
probe = linear_probe(features[~kept_back], targets[~kept_back], features[kept_back], targets[kept_back], classes)

probe.to_classifier(model).save_pretrained(out)
processor.save_pretrained(out)
print(f"C = {probe.C:.3g}, right of {kept_back.sum()} kept back: {probe.validation_accuracy[probe.C]:.2f}")
for path, chosen in zip(paths, probe.predict(features), strict=True):
    print(f"{path.name}: {classes[chosen]}")
