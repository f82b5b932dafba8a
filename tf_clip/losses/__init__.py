"""Losses: of pairs, on logits or on embeddings, and of the image classifier."""

from tf_clip.losses.classification import classification_loss
from tf_clip.losses.on_embeddings import ContrastiveLoss, GlobalBatch, PairLoss, SigmoidLoss
from tf_clip.losses.on_logits import contrastive_loss, sigmoid_loss

__all__ = [
    "ContrastiveLoss",
    "GlobalBatch",
    "PairLoss",
    "SigmoidLoss",
    "classification_loss",
    "contrastive_loss",
    "sigmoid_loss",
]
