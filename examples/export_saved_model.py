"""Write the shipped model as a SavedModel, then use it with nothing but TensorFlow.

python examples/export_saved_model.py served examples/images/owl.png examples/images/bus.png
"""

import sys
from pathlib import Path

import tensorflow as tf

import tf_clip
from tf_clip import CLIPModel, CLIPProcessor

out, *images = sys.argv[1:]
labels = ["owl", "automobile", "bicycle", "castle", "pizza", "rocket"]
model = CLIPModel.from_pretrained("pictogram-clip")
processor = CLIPProcessor.from_pretrained("pictogram-clip")
folder = tf_clip.export.saved_model(model, processor, out, labels=labels, templates=["{}", "a drawing of {}"])

# From here on a server or another language does the same.
classify = tf.saved_model.load(str(folder)).signatures["classify"]
answer = classify(image_bytes=tf.constant([Path(image).read_bytes() for image in images]))
rows = zip(images, answer["labels"].numpy(), answer["scores"].numpy(), answer["status"].numpy(), strict=True)
for image, names, scores, status in rows:
    print(f"{image}: {names[0].decode()} {scores[0]:.2f}" if status == b"ok" else f"{image}: {status.decode()}")
