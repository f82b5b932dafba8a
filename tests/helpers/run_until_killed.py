"""Trains a tiny model on random pairs, and kills itself by SIGKILL after a batch if told to.

python -m helpers.run_until_killed CHECKPOINT PAIRS.npz FOLDER KILL_AFTER_STEP
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import keras
import numpy as np

from helpers.batches import FixedBatches
from tf_clip import CLIPConfig, CLIPModel
from tf_clip.training.callbacks import TrainingLog
from tf_clip.training.recipes import layerwise
from tf_clip.training.trainer import train

checkpoint, pairs, folder, kill_after = sys.argv[1:]


class Kill(keras.callbacks.Callback):
    """Ends the process in the hardest way after so many batches."""

    batches = 0

    def on_train_batch_end(self, batch: Any, logs: Any = None) -> None:
        self.batches += 1
        if self.batches == int(kill_after):
            os.kill(os.getpid(), signal.SIGKILL)


# Dropout draws random numbers, whose seeds must be resumed as well; the processes begin with different ones.
keras.utils.set_random_seed(os.getpid() % 1000)
config = CLIPConfig.from_pretrained(checkpoint).to_dict()
config["text_config"]["attention_dropout"] = config["vision_config"]["attention_dropout"] = 0.2
model = CLIPModel.from_pretrained(checkpoint, config=config)
seeds = [variable for variable in model.variables if variable.name == "seed_generator_state"]
for variable in seeds:
    variable.assign(np.array([3, 4], "uint32"))
data = FixedBatches(dict(np.load(pairs)), batch_size=4)
recipe = layerwise(learning_rate=1e-3, warmup_steps=2, ema_momentum=0.9, gradient_accumulation_steps=2)
recipe.compile(model, steps=3 * data.steps_per_epoch)
run = train(
    model,
    data,
    epochs=3,
    folder=folder,
    save_every=4,
    resume=True,
    callbacks=[TrainingLog(folder + "/log.jsonl"), Kill()],
)
np.savez(folder + "/weights.npz", *model.get_weights(), *(np.asarray(value) for value in model.optimizer.variables))
print("finished", run.finished, "seeds", len(seeds))
