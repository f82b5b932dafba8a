"""ReFT: low-rank changes of some tokens' states behind a block; a site's state is `(x,)`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from keras import ops

from tf_clip.adapters.methods.base import FUNCTIONS, Adapter, Array, values
from tf_clip.layers.adapter_sites import RowInputs


class Reft(Adapter):
    """Changes the first tokens, and the last, within a few directions: `x + (source(x) - R x) R^T`.

    Source: Wu et al. 2024. With `orthogonality` the directions `R` are orthonormal, as products of reflections.
    """

    def build(self, input_shape: Any) -> None:
        """Makes one unit, or one for the first and one for the last tokens."""
        config, width = self.settings, self.location.site.width
        self.function = FUNCTIONS[config.non_linearity]
        self.sources: list[Any] = []
        self.projections: list[Any] = []
        for number in range(1 if config.tied_weights else 2):
            bound = width**-0.5
            source = self.dense(
                f"source_{number}", width, config.r, self.draw("uniform", bound), self.draw("uniform", bound)
            )
            initializer = self.draw("normal", 1.0) if config.orthogonality else self.draw("uniform", bound)
            # AdapterHub has the unit for the last tokens also where there are none.
            acts = bool(config.tied_weights or (config.suffix_positions if number else config.prefix_positions))
            source.trainable = acts
            projection = self.add_weight(
                shape=(width, config.r), initializer=initializer, trainable=acts, name=f"projection_{number}"
            )
            if config.orthogonality:
                projection.assign(reflections_of(np.linalg.qr(values(projection))[0]))
            self.sources.append(source)
            self.projections.append(projection)
        self.drop = self.dropout(config.dropout)

    def directions(self, number: int) -> Any:
        """Returns a unit's directions, `[width, r]`."""
        projection = ops.convert_to_tensor(self.projections[number])
        return orthonormal(projection) if self.settings.orthogonality else projection

    def _changed(self, x: Any, number: int, training: bool | None) -> Any:
        directions = ops.cast(self.directions(number), x.dtype)
        change = self.function(self.sources[number](x))
        if self.settings.subtract_projection:
            change = change - ops.matmul(x, directions)
        changed = x + ops.matmul(change, ops.transpose(directions))
        return changed if self.drop is None else self.drop(changed, training=training)

    def adapt(self, state: tuple[Any], rows: RowInputs, training: bool | None) -> tuple[Any]:
        """Changes the first and the last tokens that are no padding; where both meet, as the last."""
        (x,) = state
        config, result = self.settings, x
        index = ops.expand_dims(ops.arange(ops.shape(x)[1], dtype="int32"), 0)
        begin, end = 0, ops.shape(x)[1]
        if rows.mask is not None:
            mask = ops.cast(rows.mask, "int32")
            begin = ops.expand_dims(ops.cast(ops.argmax(mask, axis=-1), "int32"), 1)
            end = begin + ops.sum(mask, axis=-1, keepdims=True)
        if config.prefix_positions:
            is_first = ops.logical_and(index >= begin, index < begin + config.prefix_positions)
            result = ops.where(is_first[..., None], self._changed(x, 0, training), result)
        if config.suffix_positions:
            is_last = ops.logical_and(index >= end - config.suffix_positions, index < end)
            number = 0 if config.tied_weights else 1
            result = ops.where(is_last[..., None], self._changed(x, number, training), result)
        return (result,)

    def to_file(self) -> dict[str, Array]:
        """Returns its weights; orthonormal directions as PyTorch's parametrization has them, beside a whole basis."""
        tensors = {}
        for number, (source, projection) in enumerate(zip(self.sources, self.projections, strict=True)):
            unit = f"units.{number}"
            tensors[f"{unit}.learned_source.weight"] = values(source.kernel).T
            tensors[f"{unit}.learned_source.bias"] = values(source.bias)
            if not self.settings.orthogonality:
                tensors[f"{unit}.projection.weight"] = values(projection).T
                continue
            directions = np.asarray(ops.convert_to_numpy(self.directions(number)))
            below = f"{unit}.projection.parametrizations.weight"
            tensors[f"{below}.original"] = -np.eye(directions.shape[1], directions.shape[0], dtype="float32")
            tensors[f"{below}.0.base"] = _whole_basis(directions)
        return tensors

    def from_file(self, tensors: Mapping[str, Array]) -> None:
        """Takes its weights; of orthonormal directions those that PyTorch's parametrization makes."""
        for number, (source, projection) in enumerate(zip(self.sources, self.projections, strict=True)):
            unit = f"units.{number}"
            source.kernel.assign(tensors[f"{unit}.learned_source.weight"].T)
            source.bias.assign(tensors[f"{unit}.learned_source.bias"])
            if not self.settings.orthogonality:
                projection.assign(tensors[f"{unit}.projection.weight"].T)
                continue
            below = f"{unit}.projection.parametrizations.weight"
            turned = np.asarray(ops.convert_to_numpy(orthonormal(tensors[f"{below}.original"].T)))
            projection.assign(reflections_of(tensors[f"{below}.0.base"] @ turned))


def orthonormal(weights: Any) -> Any:
    """Returns orthonormal columns made of any numbers: reflections by what is below the diagonal, signs from it.

    Args:
        weights: `[width, r]`.

    Source: LAPACK's orgqr, and PyTorch's orthogonal parametrization.
    """
    weights = ops.cast(weights, "float32")
    width, rank = weights.shape
    columns = ops.convert_to_tensor(np.eye(width, rank, dtype="float32"))
    for number in reversed(range(rank)):
        below = np.arange(width)[:, None] > number
        normal = ops.where(
            below, weights[:, number : number + 1], np.eye(width, rank, dtype="float32")[:, number, None]
        )
        normal = normal * 2**0.5 / ops.sqrt(ops.sum(ops.square(normal)))
        columns = columns - ops.matmul(normal, ops.matmul(ops.transpose(normal), columns))
    signs = ops.where(ops.stop_gradient(ops.diagonal(weights)) < 0, -1.0, 1.0)
    return columns * signs


def reflections_of(columns: Array) -> Array:
    """Returns weights of which `orthonormal` makes these columns."""
    left = np.array(columns, np.float64)
    width, rank = left.shape
    weights = np.zeros((width, rank))
    for number in range(rank):
        column = left[number:, number]
        length = -np.linalg.norm(column) if column[0] >= 0 else np.linalg.norm(column)
        normal = column.copy()
        normal[0] -= length
        normal /= normal[0]
        left[number:] -= np.outer(normal, 2 / (normal @ normal) * (normal @ left[number:]))
        weights[number + 1 :, number] = normal[1:]
        weights[number, number] = np.sign(length)
    return weights.astype("float32")


def _whole_basis(columns: Array) -> Array:
    """Returns a square orthonormal matrix that begins with the columns."""
    rank = columns.shape[1]
    basis = np.linalg.qr(columns.astype(np.float64), mode="complete")[0]
    basis[:, :rank] = columns
    return basis.astype("float32")
