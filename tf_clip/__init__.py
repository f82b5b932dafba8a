"""CLIP for TensorFlow and Keras 3: images and sentences in one vector space.

Importing this package is cheap: TensorFlow and Keras load when a name that needs them is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_MODULE_OF = {
    "CLIPConfig": "tf_clip.families.clip.config",
    "CLIPTextConfig": "tf_clip.families.clip.config",
    "CLIPVisionConfig": "tf_clip.families.clip.config",
    "CLIPResNetConfig": "tf_clip.families.clip_resnet.config",
    "CLIPModel": "tf_clip.families.clip.model",
    "CLIPTextEncoder": "tf_clip.families.clip.text_tower",
    "CLIPTextModel": "tf_clip.families.clip.text_tower",
    "CLIPImageEncoder": "tf_clip.families.clip.image_tower",
    "CLIPVisionModel": "tf_clip.families.clip.image_tower",
    "CLIPResNetImageEncoder": "tf_clip.families.clip_resnet.image_tower",
    "CLIPForImageClassification": "tf_clip.families.clip.image_classification",
    "CLIPOutput": "tf_clip.models.outputs",
    "CLIPTokenizer": "tf_clip.families.clip.processing",
    "CLIPFeatureExtractorTF": "tf_clip.families.clip.processing",
    "CLIPProcessor": "tf_clip.families.clip.processing",
    "CheckpointError": "tf_clip.checkpoints.errors",
    "ContrastiveLoss": "tf_clip.losses",
    "SigmoidLoss": "tf_clip.losses",
    "contrastive_loss": "tf_clip.losses",
    "sigmoid_loss": "tf_clip.losses",
    "class_embeddings": "tf_clip.tasks.zero_shot",
    "class_probabilities": "tf_clip.tasks.zero_shot",
    "embed_images": "tf_clip.tasks.embedding",
    "embed_texts": "tf_clip.tasks.embedding",
    "Augmentation": "tf_clip.data.augmentation",
    "ListedPairs": "tf_clip.data.pairs",
    "TrainingData": "tf_clip.data.training_data",
    "read_pairs": "tf_clip.data.reading",
    "LinearProbe": "tf_clip.training.probe",
    "Recipe": "tf_clip.training.recipes",
    "image_features": "tf_clip.training.probe",
    "interpolate_weights": "tf_clip.training.wise_ft",
    "linear_probe": "tf_clip.training.probe",
    "train": "tf_clip.training.trainer",
    "ClassificationReport": "tf_clip.evaluation.classification",
    "RetrievalReport": "tf_clip.evaluation.retrieval",
    "TemplateRobustness": "tf_clip.evaluation.zero_shot",
    "ZeroShotClassifier": "tf_clip.evaluation.zero_shot",
    "classification_report": "tf_clip.evaluation.classification",
    "retrieval_metrics": "tf_clip.evaluation.retrieval",
    "retrieval_report": "tf_clip.evaluation.retrieval",
    "template_robustness": "tf_clip.evaluation.zero_shot",
    "template_set": "tf_clip.evaluation.templates",
    "zero_shot_classifier": "tf_clip.evaluation.zero_shot",
    "known_models": "tf_clip.families.published",
    "CompiledModel": "tf_clip.inference.compiled_model",
    "compile_for_inference": "tf_clip.inference.compiled_model",
    "set_inference_threads": "tf_clip.inference.hardware",
}

# The same classes under the names of transformers and tf_transformers.
_ALIAS_OF = {
    "CLIPEncoder": "CLIPModel",
    "CLIPFeatureExtractor": "CLIPFeatureExtractorTF",
    "CLIPImageConfig": "CLIPVisionConfig",
    "CLIPTextModelWithProjection": "CLIPTextEncoder",
    "CLIPVisionModelWithProjection": "CLIPImageEncoder",
}

# Parts of the package that are used by their own name: `tf_clip.export.saved_model(...)`, `tf_clip.losses`.
_PARTS = ("adapters", "export", "losses")

__all__ = sorted([*_MODULE_OF, *_ALIAS_OF, *_PARTS])

if TYPE_CHECKING:
    from tf_clip import adapters as adapters
    from tf_clip import export as export
    from tf_clip import losses as losses
    from tf_clip.checkpoints.errors import CheckpointError as CheckpointError
    from tf_clip.data.augmentation import Augmentation as Augmentation
    from tf_clip.data.pairs import ListedPairs as ListedPairs
    from tf_clip.data.reading import read_pairs as read_pairs
    from tf_clip.data.training_data import TrainingData as TrainingData
    from tf_clip.evaluation.classification import ClassificationReport as ClassificationReport
    from tf_clip.evaluation.classification import classification_report as classification_report
    from tf_clip.evaluation.retrieval import RetrievalReport as RetrievalReport
    from tf_clip.evaluation.retrieval import retrieval_metrics as retrieval_metrics
    from tf_clip.evaluation.retrieval import retrieval_report as retrieval_report
    from tf_clip.evaluation.templates import template_set as template_set
    from tf_clip.evaluation.zero_shot import TemplateRobustness as TemplateRobustness
    from tf_clip.evaluation.zero_shot import ZeroShotClassifier as ZeroShotClassifier
    from tf_clip.evaluation.zero_shot import template_robustness as template_robustness
    from tf_clip.evaluation.zero_shot import zero_shot_classifier as zero_shot_classifier
    from tf_clip.families.clip.config import CLIPConfig as CLIPConfig
    from tf_clip.families.clip.config import CLIPTextConfig as CLIPTextConfig
    from tf_clip.families.clip.config import CLIPVisionConfig as CLIPVisionConfig
    from tf_clip.families.clip.image_classification import CLIPForImageClassification as CLIPForImageClassification
    from tf_clip.families.clip.image_tower import CLIPImageEncoder as CLIPImageEncoder
    from tf_clip.families.clip.image_tower import CLIPVisionModel as CLIPVisionModel
    from tf_clip.families.clip.model import CLIPModel as CLIPModel
    from tf_clip.families.clip.processing import CLIPFeatureExtractorTF as CLIPFeatureExtractorTF
    from tf_clip.families.clip.processing import CLIPProcessor as CLIPProcessor
    from tf_clip.families.clip.processing import CLIPTokenizer as CLIPTokenizer
    from tf_clip.families.clip.text_tower import CLIPTextEncoder as CLIPTextEncoder
    from tf_clip.families.clip.text_tower import CLIPTextModel as CLIPTextModel
    from tf_clip.families.clip_resnet.config import CLIPResNetConfig as CLIPResNetConfig
    from tf_clip.families.clip_resnet.image_tower import CLIPResNetImageEncoder as CLIPResNetImageEncoder
    from tf_clip.families.published import known_models as known_models
    from tf_clip.inference.compiled_model import CompiledModel as CompiledModel
    from tf_clip.inference.compiled_model import compile_for_inference as compile_for_inference
    from tf_clip.inference.hardware import set_inference_threads as set_inference_threads
    from tf_clip.losses import ContrastiveLoss as ContrastiveLoss
    from tf_clip.losses import SigmoidLoss as SigmoidLoss
    from tf_clip.losses import contrastive_loss as contrastive_loss
    from tf_clip.losses import sigmoid_loss as sigmoid_loss
    from tf_clip.models.outputs import CLIPOutput as CLIPOutput
    from tf_clip.tasks.embedding import embed_images as embed_images
    from tf_clip.tasks.embedding import embed_texts as embed_texts
    from tf_clip.tasks.zero_shot import class_embeddings as class_embeddings
    from tf_clip.tasks.zero_shot import class_probabilities as class_probabilities
    from tf_clip.training.probe import LinearProbe as LinearProbe
    from tf_clip.training.probe import image_features as image_features
    from tf_clip.training.probe import linear_probe as linear_probe
    from tf_clip.training.recipes import Recipe as Recipe
    from tf_clip.training.trainer import train as train
    from tf_clip.training.wise_ft import interpolate_weights as interpolate_weights

    CLIPEncoder = CLIPModel
    CLIPFeatureExtractor = CLIPFeatureExtractorTF
    CLIPImageConfig = CLIPVisionConfig
    CLIPTextModelWithProjection = CLIPTextEncoder
    CLIPVisionModelWithProjection = CLIPImageEncoder


def __getattr__(name: str) -> Any:
    if name in _ALIAS_OF:
        return __getattr__(_ALIAS_OF[name])
    if name in _PARTS:
        return importlib.import_module(f"tf_clip.{name}")
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'tf_clip' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULE_OF[name]), name)
    globals()[name] = value  # looked up once
    return value


def __dir__() -> list[str]:
    return [*globals(), *__all__]
