"""Measure how well the model names images in class folders: `zero_shot.py`, and how often it is right.

python examples/evaluate.py FOLDER

The lines that differ from `zero_shot.py` are marked: classes and images come from the folder, the classes are named
in several sentences, and a report takes the place of the loop.
"""

import sys
from pathlib import Path

import numpy as np

from tf_clip import CLIPModel, CLIPProcessor, embed_images, template_set, zero_shot_classifier

PATHS = sorted(Path(sys.argv[1]).glob("*/*"))  # differs
LABELS = sorted({path.parent.name for path in PATHS})  # differs

model = CLIPModel.from_pretrained("pictogram-clip")
processor = CLIPProcessor.from_pretrained("pictogram-clip")
classifier = zero_shot_classifier(model, processor, LABELS, ["{}", *template_set("imagenet_simple")])  # differs
images = embed_images(model, processor, PATHS, skip_unreadable=True)
targets = np.array([LABELS.index(PATHS[index].parent.name) for index in images.indices])  # differs
report = classifier.report(images.embeds, targets)  # differs
for name, value in report.metrics.items():  # differs
    print(f"{name}: {value:.3f}")
for label, share in report.per_class.items():  # differs
    print(f"  {label}: {share:.3f}")
for index, reason in images.failures.items():
    print(f"{PATHS[index]}: skipped, {reason}", file=sys.stderr)
