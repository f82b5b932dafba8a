"""One TensorFlow graph from file bytes and strings to scores: no Python in between.

python examples/in_graph.py examples/images/owl.png "owl" "bicycle"
"""

import sys
from pathlib import Path

import tensorflow as tf

from tf_clip import CLIPModel, CLIPProcessor

model = CLIPModel.from_pretrained("pictogram-clip")
processor = CLIPProcessor.from_pretrained("pictogram-clip")


@tf.function(input_signature=[tf.TensorSpec([None], tf.string), tf.TensorSpec([None], tf.string)])
def score(image_bytes: tf.Tensor, texts: tf.Tensor) -> tf.Tensor:
    """Returns how likely each text is for each image, float32 `[num_images, num_texts]`."""
    inputs = {**processor.tokenizer(texts), **processor.image_processor(image_bytes)}
    return tf.nn.softmax(model(inputs).logits_per_image, axis=1)


image, *texts = sys.argv[1:]
for text, probability in zip(texts, score([Path(image).read_bytes()], texts)[0].numpy(), strict=True):
    print(f"{text}: {probability:.2f}")
