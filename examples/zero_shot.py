"""Classify images by sentences: the classes are texts, and nothing is trained.

python examples/zero_shot.py examples/images/*.png
"""

import sys

from tf_clip import CLIPModel, CLIPProcessor, class_embeddings, class_probabilities, embed_images

LABELS = ["pizza", "castle", "elephant", "bicycle", "rocket", "owl", "sailboat", "strawberry", "red apple", "bus"]

model = CLIPModel.from_pretrained("pictogram-clip")
processor = CLIPProcessor.from_pretrained("pictogram-clip")
classes = class_embeddings(model, processor, LABELS)
images = embed_images(model, processor, sys.argv[1:], skip_unreadable=True)
probabilities = class_probabilities(images.embeds, classes, float(model.logit_scale))
for index, row in zip(images.indices, probabilities, strict=True):
    print(f"{sys.argv[1 + index]}: {LABELS[row.argmax()]} ({row.max():.0%})")
for index, reason in images.failures.items():
    print(f"{sys.argv[1 + index]}: skipped, {reason}", file=sys.stderr)
