"""Measure how well images find their captions, and captions their images: `zero_shot.py` without classes.

python examples/retrieval.py pairs.csv

The table has a line `image,caption`, then a line for each caption; an image may have several. The lines that differ
from `zero_shot.py` are marked: every caption is a candidate, and what is printed are recalls, MRR and ranks.
"""

import csv
import sys
from pathlib import Path

from tf_clip import CLIPModel, CLIPProcessor, embed_images, embed_texts, retrieval_report

TABLE = Path(sys.argv[1])  # differs
with TABLE.open(encoding="utf-8", newline="") as file:  # differs
    ROWS = list(csv.DictReader(file))
PATHS = list(dict.fromkeys(TABLE.parent / row["image"] for row in ROWS))  # differs: each image once

model = CLIPModel.from_pretrained("pictogram-clip")
processor = CLIPProcessor.from_pretrained("pictogram-clip")
texts = embed_texts(model, processor, [row["caption"] for row in ROWS])  # differs
images = embed_images(model, processor, PATHS)
image_of_text = [PATHS.index(TABLE.parent / row["image"]) for row in ROWS]  # differs
report = retrieval_report(images.embeds, texts, image_of_text)  # differs
print(f"{'':<12} image to caption  caption to image")  # differs
for name, value in report.image_to_text.items():  # differs
    print(f"{name:<12} {value:18.3f}  {report.text_to_image[name]:18.3f}")
