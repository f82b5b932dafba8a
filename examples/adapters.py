"""One adapter of each family on both towers: add, train for a moment, save, load; merge what can be merged.

python examples/adapters.py OUTPUT IMAGE...        images are named for what they show
"""

import sys
from pathlib import Path

import keras

from tf_clip import CLIPModel, CLIPProcessor

FAMILIES = {
    "bottleneck": "seq_bn[reduction_factor=8]",
    "compacter": "compacter++[reduction_factor=8]",
    "lora": "lora[r=4,use_rslora=True]",
    "dora": "dora[r=4]",
    "vera": "vera",
    "factors": "ia3",
    "prefix": "prefix_tuning[prefix_length=4,bottleneck_size=16]",
    "prompts": "prompt_tuning[prompt_length=4]",
    "reft": "loreft",
    "union": "lora[r=4,use_gating=True]|seq_bn[reduction_factor=8,use_gating=True]",
}

output, images = Path(sys.argv[1]), [Path(path) for path in sys.argv[2:]]
model = CLIPModel.from_pretrained("pictogram-clip")
processor = CLIPProcessor.from_pretrained("pictogram-clip")
encoded = processor(text=[path.stem for path in images], images=images, return_tensors="np")
pairs = {name: encoded[name] for name in ("input_ids", "attention_mask", "pixel_values")}

for name, config in FAMILIES.items():
    model.add_adapter(name, config)
    model.train_adapter(name)
    model.compile(keras.optimizers.AdamW(1e-3), run_eagerly=True)
    model.fit(pairs, batch_size=len(images), epochs=2, verbose=0)
    model.save_adapter(output / name, name)
    model.load_adapter(output / name, load_as=f"{name}_again", set_active=True)
    if name in ("lora", "dora", "vera", "factors"):
        model.merge_adapter(name)
        model.reset_adapter()
print(model.adapter_summary())
