"""The linear probe: logistic regression on a frozen image tower's features, as strong as validation likes best."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from keras import ops

from tf_clip.families.family import class_at, family_of
from tf_clip.models.image_classification import ImageClassificationModel
from tf_clip.models.pretrained import variables_below
from tf_clip.models.two_towers import TwoTowerModel
from tf_clip.preprocessing.processor import Processor
from tf_clip.tasks.embedding import encode_images
from tf_clip.unit_length import unit_rows

FEATURES = ("image_embeds", "patch_mean", "pooler_output")
MAX_ITERATIONS = 1000
# Exponents of 10, eight a decade from 1e-6 to 1e6.
_EXPONENTS = np.linspace(-6.0, 6.0, 97)
_FIRST_STRIDE = 16


@dataclasses.dataclass(frozen=True)
class LinearProbe:
    """A linear classifier of frozen features; `linear_probe` makes one.

    Args:
        weights: float32 `[num_features, num_classes]`.
        bias: float32 `[num_classes]`.
        class_names: the classes' names.
        C: the inverse of the regularization's strength that was chosen, as scikit-learn counts it.
        validation_accuracy: by the C that were tried, the share of the validation images named right.
    """

    weights: np.ndarray
    bias: np.ndarray
    class_names: tuple[str, ...]
    C: float
    validation_accuracy: dict[float, float]

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Scores classes.

        Args:
            features: float `[num_images, num_features]`, of the kind that the probe was fitted on.

        Returns:
            float32 `[num_images, num_classes]`.
        """
        logits: np.ndarray = np.asarray(features, np.float32) @ self.weights + self.bias
        return logits

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Returns the index of each image's likeliest class, int64 `[num_images]`."""
        return np.asarray(np.argmax(self.logits(features), axis=1))

    def class_embeddings(self) -> tuple[np.ndarray, float]:
        """Returns the probe as embeddings of classes, for `class_probabilities`, in place of those of texts.

        Only for a probe of `"image_embeds"` that was fitted without bias, which nothing in an embedding holds.

        Returns:
            float32 `[num_classes, projection_dim]`, of length 1 in the mean, and the `logit_scale` to go with them.

        Raises:
            ValueError: the probe has a bias.
        """
        if np.any(self.bias):
            raise ValueError(
                "`class_embeddings` must be asked of a probe without bias. Received: a probe with one. "
                "Fit it on image_embeds with bias=False."
            )
        length = float(np.linalg.norm(self.weights, axis=0).mean())
        return np.ascontiguousarray(self.weights.T) / np.float32(length), float(np.log(length))

    def to_classifier(self, model: TwoTowerModel) -> ImageClassificationModel:
        """Returns the model's image tower with the probe as its classifier; `save_pretrained` writes it.

        Only for a probe of `"patch_mean"`, which is what `CLIPForImageClassification` classifies.

        Args:
            model: the model whose features the probe was fitted on; its weights are copied.

        Raises:
            ValueError: the widths differ, or the image tower is a ResNet.
        """
        config = model.config.to_dict()
        config["id2label"] = dict(enumerate(self.class_names))
        config["label2id"] = {name: index for index, name in enumerate(self.class_names)}
        classifier: ImageClassificationModel = _classifier_class(model)(config)
        width = model.config.vision_config.hidden_size
        if len(self.weights) != width:
            raise ValueError(
                f"`model` must have the number of features of the probe, {len(self.weights)}. "
                f"Received: a tower of width {width}. Fit the probe on features='patch_mean' of this model."
            )
        stored = variables_below(model.image_encoder, "image_encoder")
        for path, variable in variables_below(classifier.image_encoder, "image_encoder").items():
            variable.assign(stored[path])
        head: Any = classifier.classifier
        head.set_weights([self.weights, self.bias])
        return classifier


def linear_probe(
    features: np.ndarray,
    targets: np.ndarray,
    validation_features: np.ndarray,
    validation_targets: np.ndarray,
    class_names: Sequence[str] | None = None,
    *,
    bias: bool = True,
    refit: bool = True,
    on_progress: Callable[[float, float], None] | None = None,
) -> LinearProbe:
    """Fits L2-regularized logistic regression by L-BFGS, its strength chosen on validation images.

    Args:
        features: float `[num_images, num_features]`, the `values` of `image_features`.
        targets: int `[num_images]`, each image's class, from 0.
        validation_features: of other images, by which the strength is chosen.
        validation_targets: their classes.
        class_names: the classes' names; None calls them by their numbers.
        bias: whether classes have a bias.
        refit: fit once more on all images with the strength that was chosen.
        on_progress: called with each C that was tried and its validation accuracy.

    Returns:
        The probe.

    Raises:
        ImportError: scikit-learn is missing.
        ValueError: shapes do not fit, a feature is not finite, or a class has no training image.

    Example:
        >>> probe = linear_probe(train, train_targets, valid, valid_targets)  # doctest: +SKIP
        >>> probe.predict(test)  # doctest: +SKIP

    Source: Radford et al. 2021, appendix A.3: at most 1000 iterations; of 97 strengths from 1e-6 to 1e6, eight a
    decade, seven are tried and then the neighbors of the best, at half the distance each time. Between equals, the
    likelihood of the right classes decides. The paper fits on what is before the projection
    (`"pooler_output"`).
    """
    features, targets = _checked("features", features, "targets", targets)
    validation_features, validation_targets = _checked(
        "validation_features", validation_features, "validation_targets", validation_targets
    )
    names = tuple(map(str, range(targets.max() + 1))) if class_names is None else tuple(class_names)
    _require_classes(targets, validation_targets, names)
    tried: dict[float, tuple[float, float]] = {}

    def score(index: int) -> tuple[float, float]:
        strength = float(10.0 ** _EXPONENTS[index])
        if strength not in tried:
            weights, biases = _fit(features, targets, strength, bias, len(names))
            tried[strength] = _validated(validation_features @ weights + biases, validation_targets)
            if on_progress:
                on_progress(strength, tried[strength][0])
        return tried[strength]

    best = _search(score)
    if refit:
        features = np.concatenate([features, validation_features])
        targets = np.concatenate([targets, validation_targets])
    strength = float(10.0 ** _EXPONENTS[best])
    weights, biases = _fit(features, targets, strength, bias, len(names))
    accuracies = {strength: accuracy for strength, (accuracy, _) in sorted(tried.items())}
    return LinearProbe(weights, biases, names, strength, accuracies)


@dataclasses.dataclass(frozen=True)
class ImageFeatures:
    """What `image_features` made of a list of images.

    Args:
        values: float32 `[num_read, num_features]`.
        indices: int64 `[num_read]`, which image of the list each row is.
        failures: from an image's index to the reason why it is unreadable.
    """

    values: np.ndarray
    indices: np.ndarray
    failures: dict[int, str]


def image_features(
    model: TwoTowerModel,
    processor: Processor,
    images: Sequence[Any],
    features: str = "pooler_output",
    *,
    batch_size: int = 32,
    skip_unreadable: bool = False,
    on_progress: Callable[[int], None] | None = None,
) -> ImageFeatures:
    """Computes the features of images once, so that any number of probes can be fitted on them.

    Args:
        model: the model, which stays as it is.
        processor: its processor.
        images: paths, PIL images, files' bytes or uint8 pixels.
        features: `"pooler_output"`, what is before the projection, as in CLIP's paper; `"image_embeds"`, of unit
            length, for `LinearProbe.class_embeddings`; `"patch_mean"`, the mean of the patches' last states, for
            `LinearProbe.to_classifier`.
        batch_size: images a forward pass.
        skip_unreadable: report unreadable images in `failures` and go on, instead of raising.
        on_progress: called with the number of images just done.

    Raises:
        ValueError: `features` is none of these, a ResNet is asked for `"patch_mean"`, or no image is readable.
        FileNotFoundError, ValueError: an image is unreadable, unless `skip_unreadable`.
    """
    if features not in FEATURES or (features == "patch_mean" and not hasattr(model.config.vision_config, "patch_size")):
        raise ValueError(
            f"`features` must be one of {FEATURES}, and a ResNet has no patches. Received: features={features!r}. "
            "Take 'pooler_output' for the best probe."
        )
    rows, indices, failures = encode_images(
        lambda pixel_values: _tower_features(model, pixel_values, features),
        processor,
        images,
        batch_size=batch_size,
        skip_unreadable=skip_unreadable,
        on_progress=on_progress,
    )
    if not rows:
        raise ValueError(f"`images` must hold a readable image. Received: {len(images)} others. Add some.")
    return ImageFeatures(np.concatenate(rows), indices, failures)


def _classifier_class(model: TwoTowerModel) -> Any:
    """Returns the class that a checkpoint of the model's family with a classifier is saved from."""
    family = family_of(model)
    if family.class_of is None:
        raise ValueError(
            f"`model` must be of a family with an image classifier. Received: {type(model).__name__} of {family.name}. "
            "Keep the probe as it is."
        )
    return class_at(family.class_of(model.config.model_type, ("classifier.weight",)))


def _tower_features(model: TwoTowerModel, pixel_values: Any, features: str) -> np.ndarray:
    states = model.image_encoder(pixel_values)
    values = ops.mean(states["last_hidden_state"][:, 1:], axis=1) if features == "patch_mean" else states[features]
    if features == "image_embeds":
        return unit_rows(values)
    rows: np.ndarray = ops.convert_to_numpy(values).astype(np.float32)
    return rows


def _validated(logits: np.ndarray, targets: np.ndarray) -> tuple[float, float]:
    """Returns the share named right, and how likely the right classes are on average, as a logarithm.

    The second decides between strengths that name equally many right: of few images, many strengths do.
    """
    own = logits[np.arange(len(targets)), targets]
    highest = logits.max(axis=1)
    total = highest + np.log(np.exp(logits - highest[:, np.newaxis]).sum(axis=1))
    return float(np.mean(np.argmax(logits, axis=1) == targets)), float(np.mean(own - total))


def _search(score: Callable[[int], tuple[float, float]]) -> int:
    """Returns the index of the best exponent, looking ever closer around the best so far."""
    best = max(range(0, len(_EXPONENTS), _FIRST_STRIDE), key=score)
    stride = _FIRST_STRIDE // 2
    while stride:
        around = [index for index in (best, best - stride, best + stride) if 0 <= index < len(_EXPONENTS)]
        best = max(around, key=score)  # the first of equals
        stride //= 2
    return best


def _fit(
    features: np.ndarray, targets: np.ndarray, strength: float, bias: bool, num_classes: int
) -> tuple[np.ndarray, np.ndarray]:
    try:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise ImportError(
            "The linear probe needs scikit-learn. Received: none. Install it with: pip install 'tf_clip[train]'"
        ) from error
    regression = LogisticRegression(C=strength, max_iter=MAX_ITERATIONS, fit_intercept=bias)
    with warnings.catch_warnings():
        # Validation says how good a fit is, also one that was ended before it was the best.
        warnings.simplefilter("ignore", ConvergenceWarning)
        regression.fit(features, targets)
    weights, biases = regression.coef_, np.broadcast_to(regression.intercept_, len(regression.coef_))
    if num_classes == 2:  # one row, of the second class against the first
        weights, biases = np.concatenate([-weights, weights]) / 2, np.concatenate([-biases, biases]) / 2
    return weights.T.astype(np.float32), biases.astype(np.float32)


def _checked(name: str, features: np.ndarray, targets_name: str, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    features, targets = np.asarray(features), np.asarray(targets)
    if features.ndim != 2 or targets.shape != features.shape[:1] or not len(targets):
        raise ValueError(
            f"`{targets_name}` must hold a class for each row of `{name}`, at least one. Received: "
            f"{name}.shape={features.shape}, {targets_name}.shape={targets.shape}. Pass one per image."
        )
    if targets.dtype.kind not in "biu":
        raise ValueError(
            f"`{targets_name}` must be whole numbers. Received: {targets_name}.dtype={targets.dtype}. "
            "Pass the index of each image's class."
        )
    if not np.isfinite(features).all():
        raise ValueError(f"`{name}` must be finite. Received: NaN or infinity. Look for it in the model's weights.")
    return features, targets


def _require_classes(targets: np.ndarray, validation_targets: np.ndarray, names: Sequence[str]) -> None:
    missing = sorted(set(range(len(names))) - set(targets.tolist()))
    unknown = sorted((set(targets.tolist()) | set(validation_targets.tolist())) - set(range(len(names))))
    if len(names) < 2 or missing or unknown:
        raise ValueError(
            f"`targets` must be numbers of {max(len(names), 2)} classes, each with a training image. Received: "
            f"{len(names)} classes, without an image: {missing[:5]}, unknown: {unknown[:5]}. Add or remove some."
        )
