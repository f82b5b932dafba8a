"""`ServingClient`: what the clients of both protocols share: rows, batches, retries, and results in order."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from tf_clip.client import signatures
from tf_clip.client.batches import Columns, Piece, joined, read_piece
from tf_clip.client.errors import ServingError
from tf_clip.client.inputs import check_images, check_texts, image_bytes, name_of, slices, text_bytes
from tf_clip.client.results import OK, Classification, Embeddings, PairSimilarity, Similarity
from tf_clip.client.retries import Deadline, RetryPolicy
from tf_clip.client.signatures import Signature

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from tf_clip.client.inputs import ImageInput

ON_BAD_ROW = ("status", "raise")


class ServingClient(abc.ABC):
    """The calls of `RestClient` and `GrpcClient`; the arguments are described there."""

    def __init__(
        self,
        model: str,
        version: int | None,
        *,
        label: str | None,
        timeout: float,
        deadline: float | None,
        retries: int,
        backoff: float,
        batch_size: int,
        concurrency: int,
        on_bad_row: str,
    ) -> None:
        for name, value, least in (
            ("retries", retries, 0),
            ("batch_size", batch_size, 1),
            ("concurrency", concurrency, 1),
        ):
            if value < least:
                raise ValueError(f"`{name}` must be at least {least}. Received: {name}={value!r}.")
        for name, seconds in (("timeout", timeout), ("deadline", deadline), ("backoff", backoff)):
            if seconds is not None and not seconds > 0:
                raise ValueError(f"`{name}` must be a number of seconds above 0. Received: {name}={seconds!r}.")
        if on_bad_row not in ON_BAD_ROW:
            raise ValueError(f"`on_bad_row` must be one of {ON_BAD_ROW}. Received: on_bad_row={on_bad_row!r}.")
        if version is not None and label is not None:
            raise ValueError(
                "`version` and `label` must not both be given. "
                f"Received: version={version!r}, label={label!r}. Leave one out."
            )
        self.model = model
        self.version = version
        self.label = label
        self.timeout = timeout
        self.deadline = deadline
        self.batch_size = batch_size
        self.concurrency = concurrency
        self.on_bad_row = on_bad_row
        self._policy = RetryPolicy(retries, backoff)
        self._most_rows = batch_size  # less when a server refuses so many

    def encode_images(self, images: Iterable[ImageInput]) -> Embeddings:
        """Embeds images.

        Args:
            images: paths, files' bytes, uint8 arrays `[height, width, 3]` or PIL images; any number.

        Returns:
            One row an image. A file that cannot be read or is no image has zeros and a status that says so.

        Raises:
            ServingError: the server cannot be reached or refuses; with `on_bad_row="raise"`, a bad row.
            TypeError, ValueError: `images` holds something else.
        """
        outputs = self._by_rows(signatures.ENCODE_IMAGE, {"image_bytes": (check_images(images), image_bytes)})
        return Embeddings(outputs["image_embeds"], outputs["status"].tolist())

    def encode_texts(self, texts: Iterable[str | bytes]) -> Embeddings:
        """Embeds texts.

        Args:
            texts: the texts, or their UTF-8; any number. Longer ones than the model takes are cut.

        Returns:
            One row a text.

        Raises:
            ServingError: the server cannot be reached or refuses; with `on_bad_row="raise"`, a bad row.
            TypeError: `texts` holds something else.
        """
        outputs = self._by_rows(signatures.ENCODE_TEXT, {"text": (check_texts(texts), text_bytes)})
        return Embeddings(outputs["text_embeds"], outputs["status"].tolist())

    def classify(self, images: Iterable[ImageInput]) -> Classification:
        """Ranks the labels that the model was exported with.

        Args:
            images: as in `encode_images`.

        Returns:
            One row an image.

        Raises:
            ServingError: as in `encode_images`; the model was exported without labels.
            TypeError, ValueError: `images` holds something else.
        """
        outputs = self._by_rows(signatures.CLASSIFY, {"image_bytes": (check_images(images), image_bytes)})
        status = outputs.pop("status").tolist()
        return Classification(**outputs, status=status)

    def similarity_pairs(self, images: Iterable[ImageInput], texts: Iterable[str | bytes]) -> PairSimilarity:
        """Compares each image with the text of the same place.

        Args:
            images: as in `encode_images`.
            texts: as many texts.

        Returns:
            One row a pair.

        Raises:
            ServingError: as in `encode_images`.
            TypeError, ValueError: the inputs are something else, or not of one length.
        """
        images, sentences = check_images(images), check_texts(texts)
        if len(images) != len(sentences):
            raise ValueError(
                "`images` and `texts` must be of one length. "
                f"Received: {len(images)} images, {len(sentences)} texts. `similarity` compares all with all."
            )
        columns = {"image_bytes": (images, image_bytes), "text": (sentences, text_bytes)}
        outputs = self._by_rows(signatures.SIMILARITY_PAIRS, columns)
        return PairSimilarity(outputs["logits"], outputs["status"].tolist())

    def similarity(self, images: Iterable[ImageInput], texts: Iterable[str | bytes]) -> Similarity:
        """Compares all images with all texts.

        Images go in batches, each with all the texts. A server that batches requests cannot serve this
        signature; there, compare the results of `encode_images` and `encode_texts`.

        Args:
            images: as in `encode_images`; at least one.
            texts: as in `encode_texts`; at least one.

        Returns:
            One row an image, one column a text.

        Raises:
            ServingError: as in `encode_images`; the server batches.
            TypeError, ValueError: the inputs are something else, or empty.
        """
        images, sentences = check_images(images), check_texts(texts)
        if not images or not sentences:
            raise ValueError(
                "`images` and `texts` must not be empty. "
                f"Received: {len(images)} images, {len(sentences)} texts. Give at least one of each."
            )
        shared = [text_bytes(text) for text in sentences]
        deadline = Deadline(self.deadline)

        def run(part: slice) -> list[Piece]:
            return [self._similarity_piece(images, part, shared, deadline)]

        pieces = self._concurrently(run, slices(0, len(images), self.batch_size))
        outputs = joined(pieces, {"logits_per_image": (len(sentences),), "probabilities": (len(sentences),)})
        text_status = next(
            (piece.shared["text_status"].tolist() for piece in pieces if piece.shared),
            ["not sent: no image could be read"] * len(sentences),
        )
        return Similarity(
            outputs["logits_per_image"], outputs["probabilities"], outputs["status"].tolist(), text_status
        )

    @abc.abstractmethod
    def metadata(self) -> dict[str, Any]:
        """Returns what is served.

        Returns:
            `{"name", "version", "signatures": {name: {"inputs": {name: {"dtype", "shape"}}, "outputs": {...}}}}`;
            None in a shape is a free axis.

        Raises:
            ServingError: the server cannot be reached or does not serve the model.
        """

    @abc.abstractmethod
    def is_ready(self) -> bool:
        """Asks once, without retries, whether the model answers predictions now.

        Raises:
            ServingError: the server refuses the question itself, such as without the right `headers`.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Closes the connections."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @abc.abstractmethod
    def _predict(self, signature: str, inputs: Mapping[str, Sequence[bytes]], timeout: float) -> Mapping[str, Any]:
        """Sends one request and returns the outputs of its answer."""

    def _by_rows(self, signature: Signature, columns: Columns) -> dict[str, np.ndarray]:
        """Runs a signature whose inputs and outputs share their rows, batch by batch."""
        length = len(next(iter(columns.values()))[0])
        deadline = Deadline(self.deadline)

        def run(part: slice) -> list[Piece]:
            most = self._most_rows
            if part.stop - part.start > most:
                return [piece for smaller in slices(part.start, part.stop, most) for piece in run(smaller)]
            try:
                return [ask(part)]
            except ServingError as error:
                if not error.most_rows or error.most_rows >= part.stop - part.start:
                    raise
                self._most_rows = min(self._most_rows, error.most_rows)
                return run(part)

        def ask(part: slice) -> Piece:
            piece = read_piece(columns, part)
            if piece.sent:
                rows = dict.fromkeys(signature.outputs, len(piece.sent))
                piece.outputs = self._send(signature, piece.inputs, rows, deadline)
            self._refuse_bad_rows(piece, [items for items, _ in columns.values()])
            return piece

        pieces = self._concurrently(run, slices(0, length, self._most_rows))
        shapes: dict[str, tuple[int, ...]] = {}
        if not any(piece.sent for piece in pieces):  # no answer tells how wide a row is
            described = self.metadata()["signatures"].get(signature.name, {}).get("outputs", {})
            shapes = {name: tuple(size or 0 for size in one["shape"][1:]) for name, one in described.items()}
        shapes = {name: shapes.get(name, (0,) * (rank - 1)) for name, rank in signature.outputs.items()}
        return joined(pieces, shapes, signature.strings)

    def _similarity_piece(self, images: list[Any], part: slice, texts: list[bytes], deadline: Deadline) -> Piece:
        piece = read_piece({"image_bytes": (images, image_bytes)}, part)
        if piece.sent:
            signature = signatures.SIMILARITY
            rows = {**dict.fromkeys(signature.outputs, len(piece.sent)), "text_status": len(texts)}
            outputs = self._send(signature, {**piece.inputs, "text": texts}, rows, deadline)
            for name in ("logits_per_image", "probabilities"):
                if outputs[name].shape[1] != len(texts):
                    raise ServingError(
                        f"the answer has {name!r} of {outputs[name].shape[1]} columns for {len(texts)} texts",
                        advice="Check that the server does not batch: `similarity` is not for that.",
                    )
            piece.shared = {"text_status": outputs.pop("text_status")}
            piece.outputs = {**outputs, "status": outputs.pop("image_status")}
        self._refuse_bad_rows(piece, [images])
        if piece.shared and self.on_bad_row == "raise":
            for index, status in enumerate(piece.shared["text_status"]):
                if status != OK:
                    raise _bad_row(index, [texts[index].decode("utf-8", "replace")], status)
        return piece

    def _send(
        self, signature: Signature, inputs: Mapping[str, Sequence[bytes]], rows: Mapping[str, int], deadline: Deadline
    ) -> dict[str, np.ndarray]:
        def attempt(left: float) -> Mapping[str, Any]:
            return self._predict(signature.name, inputs, min(self.timeout, left))

        return signature.checked(self._policy.run(attempt, deadline), rows)

    def _concurrently(self, run: Callable[[slice], list[Piece]], parts: Sequence[slice]) -> list[Piece]:
        """Runs the batches, at most `concurrency` at a time; what a batch needs is read when its turn comes."""
        if self.concurrency == 1 or len(parts) < 2:
            return [piece for part in parts for piece in run(part)]
        with ThreadPoolExecutor(min(self.concurrency, len(parts)), "tf_clip_client") as pool:
            futures = [pool.submit(run, part) for part in parts]
            try:
                return [piece for future in futures for piece in future.result()]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _refuse_bad_rows(self, piece: Piece, columns: Sequence[Sequence[Any]]) -> None:
        if self.on_bad_row == "raise":
            for index, status in piece.statuses():
                if status != OK:
                    raise _bad_row(index, [column[index] for column in columns], status)


def _bad_row(index: int, items: Sequence[Any], status: str) -> ServingError:
    return ServingError(
        f"row {index} ({', '.join(map(name_of, items))}): {status}",
        advice='Leave it out, or take `on_bad_row="status"`, which gives the other rows.',
    )
