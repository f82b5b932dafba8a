"""A folder of class folders to pairs: the class is the caption."""

from __future__ import annotations

import os
from collections.abc import Sequence

import tensorflow as tf

from tf_clip.data.pairs import ListedPairs
from tf_clip.data.skipped import SkippedExample
from tf_clip.tasks.zero_shot import require_templates


def class_folder_pairs(folder: str, templates: Sequence[str]) -> ListedPairs:
    """Lists the images of each class.

    Args:
        folder: has one folder for each class. In its name "_" stands for a space.
        templates: prompts with `{}` where the class's name goes; each makes a caption.

    Returns:
        Pairs in the order of the names; those of one class belong together.

    Raises:
        ValueError: there is no class folder, or a template lacks `{}`.
    """
    require_templates("template", templates)
    images: list[str] = []
    classes: list[str] = []
    skipped: list[SkippedExample] = []
    for name in _visible(folder):
        class_folder = os.path.join(folder, name)  # noqa: PTH118 - of any file system, so no pathlib
        if not tf.io.gfile.isdir(class_folder):
            continue
        for image in _visible(class_folder):
            path = os.path.join(class_folder, image)  # noqa: PTH118
            if tf.io.gfile.isdir(path):
                skipped.append(SkippedExample(path, "a folder inside a class folder"))
            else:
                images.append(path)
                classes.append(name.replace("_", " "))
    if not images:
        raise ValueError(
            f"`source` must be a folder with a folder of images for each class. Received: source={folder!r}, which "
            "has none. For tables or shards in a folder, name the files, as in 'folder/*.tar'."
        )
    captions = {name: [template.replace("{}", name) for template in templates] for name in set(classes)}
    return ListedPairs(images, [captions[name] for name in classes], groups=classes, skipped=skipped)


def _visible(folder: str) -> list[str]:
    # Some file systems mark folders by a slash.
    names = (name.rstrip("/") for name in tf.io.gfile.listdir(folder))
    return sorted(name for name in names if name and not name.startswith("."))
