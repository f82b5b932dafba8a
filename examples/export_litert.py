"""Write the shipped model as .tflite files, then rank images for a sentence with nothing but LiteRT and Pillow.

python examples/export_litert.py mobile "an animal" examples/images/owl.png examples/images/bus.png
"""

import sys

import numpy as np
from PIL import Image

import tf_clip
from tf_clip import CLIPModel, CLIPProcessor
from tf_clip.export import LiteRTModel

out, sentence, *paths = sys.argv[1:]
model = CLIPModel.from_pretrained("pictogram-clip")
processor = CLIPProcessor.from_pretrained("pictogram-clip")
tf_clip.export.litert(model, processor, out, parts=["image", "text_from_utf8"], quantization="dynamic_int8")

# From here on an app on a phone does the same, in its own language.
runtime = LiteRTModel(out, threads=2)
images = runtime.encode_images([np.asarray(Image.open(path).convert("RGB")) for path in paths])
cosines = images @ runtime.encode_texts([sentence])[0]
for index in np.argsort(-cosines):
    print(f"{paths[index]}: {cosines[index]:.3f}")
