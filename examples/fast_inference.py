"""Search images by a sentence, with the model compiled for this machine; the scores are the same.

python examples/fast_inference.py "a bus" examples/images/*.png
"""

import sys

from tf_clip import CLIPModel, CLIPProcessor, compile_for_inference, embed_images, set_inference_threads

set_inference_threads()
sentence, *paths = sys.argv[1:]
processor = CLIPProcessor.from_pretrained("pictogram-clip")
model = CLIPModel.from_pretrained("pictogram-clip")
model = compile_for_inference(model, processor, engine="tensorflow", keep_model=False)
images = embed_images(model, processor, paths)
scores = images.embeds @ model.encode_text(**processor(text=[sentence]))[0]
for index in scores.argsort()[::-1][:3]:
    print(f"{paths[index]}: {scores[index]:.2f}")
