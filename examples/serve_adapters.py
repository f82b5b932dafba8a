"""One base and several LoRAs in one SavedModel: every row of a request names the adapter that it wants.

python examples/serve_adapters.py OUTPUT        then: saved_model_cli show --all --dir OUTPUT/1
"""

import sys
from pathlib import Path

import tensorflow as tf

from tf_clip import CLIPModel, CLIPProcessor
from tf_clip.adapters import Switch

NAMES = ["animals", "vehicles"]

model = CLIPModel.from_pretrained("pictogram-clip")
processor = CLIPProcessor.from_pretrained("pictogram-clip")
for name in NAMES:  # stand-ins for model.load_adapter("folder", load_as=name), with an effect that can be seen
    model.add_adapter(name, "lora[r=4,alpha=1000,init_weights=bert]")
model.active_adapters = Switch(*NAMES)
numbers = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(["", *NAMES], [-1, *range(len(NAMES))]), -2)


class Served(tf.Module):
    """What a server loads.

    Args:
        clip: a model whose rows choose.
        names: a table from the adapters' names to their numbers.
    """

    def __init__(self, clip: CLIPModel, names: tf.lookup.StaticHashTable) -> None:
        super().__init__()
        self.clip, self.names = clip, names
        self.tokenizer = processor.tokenizer  # it has tables, and what a function reads must be an attribute

    @tf.function(
        input_signature=[tf.TensorSpec([None], tf.string, "text"), tf.TensorSpec([None], tf.string, "adapter")]
    )
    def encode_text(self, text: tf.Tensor, adapter: tf.Tensor) -> dict[str, tf.Tensor]:
        """Encodes each text with the adapter named beside it, or with none where that is empty."""
        adapter_ids = self.names.lookup(adapter)
        with tf.control_dependencies(
            [tf.debugging.Assert(tf.reduce_all(adapter_ids > -2), ["unknown adapter", adapter])]
        ):
            inputs = self.tokenizer(text)
        embeds = self.clip.text_encoder(inputs["input_ids"], adapter_ids=adapter_ids).text_embeds
        return {"text_embeds": tf.math.l2_normalize(embeds, axis=1)}


served = Served(model, numbers)
folder = Path(sys.argv[1]) / "1"
tf.saved_model.save(served, folder, signatures={"encode_text": served.encode_text})

loaded = tf.saved_model.load(folder).signatures["encode_text"]
rows = loaded(text=tf.constant(["an owl"] * 3), adapter=tf.constant(["", *NAMES]))["text_embeds"]
print(tf.matmul(rows, rows, transpose_b=True).numpy().round(2))
