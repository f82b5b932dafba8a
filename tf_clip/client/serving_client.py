"""`ServingClient`: what the clients of both protocols share: arguments, calls, batches and retries."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tf_clip.client import signatures
from tf_clip.client.batches import Batch, Columns, joined, read_batch, refuse_bad_rows, run_concurrently, slices
from tf_clip.client.errors import ServingError
from tf_clip.client.inputs import check_images, check_texts, image_bytes, text_bytes
from tf_clip.client.results import Classification, Embeddings, PairSimilarity, Similarity
from tf_clip.client.retries import Deadline, RetryPolicy
from tf_clip.client.signatures import Signature

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from tf_clip.client.inputs import ImageInput

ON_BAD_ROW = ("status", "raise")
_LEAST = {"retries": 0, "batch_size": 1, "concurrency": 1}


def _hidden(default: Any) -> Any:
    return dataclasses.field(default=default, repr=False)


@dataclasses.dataclass(eq=False)
class ServingClient(abc.ABC):
    """The arguments and calls of `RestClient` and `GrpcClient`.

    One client serves any number of threads and keeps its connections open. A request that may succeed later is sent
    again, with growing waits. A bad row (a broken image, a missing file) does not affect the others: its own numbers
    are zeros, and `status` says why.

    Args:
        url: the server: `"http://localhost:8501"` for REST, `"localhost:8500"` for gRPC.
        model: the model's name on the server.
        version: its version; None for the newest.
        timeout: seconds that one request may take.
        retries: how often a batch is sent again at most.
        batch_size: rows in one request; fewer, from then on, where a server refuses this number.
        label: the version's label, such as `"stable"`, instead of `version`.
        deadline: seconds that a whole call may take, with all its batches, retries and waits; None for no limit.
        backoff: seconds before the first retry. Each wait is twice the last, plus a random time of up to its length.
        concurrency: batches sent at the same time.
        on_bad_row: `"status"`, or `"raise"` to make the first bad row a `ServingError`.
        headers: sent with each request, such as `{"Authorization": "Bearer ..."}`; not shown by `repr`.

    Raises:
        ValueError: an argument is out of range.
    """

    url: str
    model: str = "clip"
    version: int | None = None
    timeout: float = _hidden(30.0)
    retries: int = _hidden(4)
    batch_size: int = _hidden(32)
    _: dataclasses.KW_ONLY
    label: str | None = None
    deadline: float | None = _hidden(None)
    backoff: float = _hidden(0.25)
    concurrency: int = _hidden(1)
    on_bad_row: str = _hidden("status")
    headers: Mapping[str, str] | None = _hidden(None)

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            if getattr(self, name) < least:
                raise ValueError(f"`{name}` must be at least {least}. Received: {name}={getattr(self, name)!r}.")
        for name in ("timeout", "deadline", "backoff"):
            seconds = getattr(self, name)
            if seconds is not None and not seconds > 0:
                raise ValueError(f"`{name}` must be a number of seconds above 0. Received: {name}={seconds!r}.")
        if self.on_bad_row not in ON_BAD_ROW:
            raise ValueError(f"`on_bad_row` must be one of {ON_BAD_ROW}. Received: on_bad_row={self.on_bad_row!r}.")
        if self.version is not None and self.label is not None:
            raise ValueError(
                "`version` and `label` must not both be given. "
                f"Received: version={self.version!r}, label={self.label!r}. Leave one out."
            )
        self._policy = RetryPolicy(self.retries, self.backoff)
        self._most_rows = self.batch_size  # lower once a server refuses this number

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
        outputs = self._call(signatures.ENCODE_IMAGE, {"image_bytes": (check_images(images), image_bytes)})
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
        outputs = self._call(signatures.ENCODE_TEXT, {"text": (check_texts(texts), text_bytes)})
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
        outputs = self._call(signatures.CLASSIFY, {"image_bytes": (check_images(images), image_bytes)})
        status = outputs.pop("status").tolist()
        return Classification(**outputs, status=status)

    def similarity_pairs(self, images: Iterable[ImageInput], texts: Iterable[str | bytes]) -> PairSimilarity:
        """Compares each image with the text at the same position.

        Args:
            images: as in `encode_images`.
            texts: the same number of texts.

        Returns:
            One row a pair.

        Raises:
            ServingError: as in `encode_images`.
            TypeError, ValueError: the inputs are something else, or of different lengths.
        """
        images, texts = check_images(images), check_texts(texts)
        if len(images) != len(texts):
            raise ValueError(
                "`images` and `texts` must have the same length. "
                f"Received: {len(images)} images, {len(texts)} texts. `similarity` compares all with all."
            )
        columns = {"image_bytes": (images, image_bytes), "text": (texts, text_bytes)}
        outputs = self._call(signatures.SIMILARITY_PAIRS, columns)
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
        images, texts = check_images(images), check_texts(texts)
        if not images or not texts:
            raise ValueError(
                "`images` and `texts` must not be empty. "
                f"Received: {len(images)} images, {len(texts)} texts. Give at least one of each."
            )
        columns = {"image_bytes": (images, image_bytes)}
        outputs = self._call(signatures.SIMILARITY, columns, [text_bytes(text) for text in texts])
        return Similarity(
            outputs["logits_per_image"],
            outputs["probabilities"],
            outputs["image_status"].tolist(),
            outputs["text_status"].tolist(),
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

    def _call(self, signature: Signature, columns: Columns, texts: Sequence[bytes] = ()) -> dict[str, np.ndarray]:
        """Runs a signature batch by batch; `texts` are sent with every batch."""
        deadline = Deadline(self.deadline)

        def run(part: slice) -> list[Batch]:
            size = part.stop - part.start
            if size > self._most_rows:
                return [batch for less in slices(part.start, part.stop, self._most_rows) for batch in run(less)]
            batch = read_batch(columns, part)
            if batch.sent:
                inputs = {**batch.inputs, "text": texts} if texts else batch.inputs
                try:
                    answer = self._policy.run(
                        lambda left: self._predict(signature.name, inputs, min(self.timeout, left)), deadline
                    )
                except ServingError as error:
                    if not error.most_rows or error.most_rows >= size:
                        raise
                    self._most_rows = min(self._most_rows, error.most_rows)
                    return run(part)
                batch.outputs = signature.checked(answer, len(batch.sent), len(texts))
            if self.on_bad_row == "raise":
                refuse_bad_rows(batch, signature, columns, texts)
            return [batch]

        length = len(next(iter(columns.values()))[0])
        batches = run_concurrently(run, slices(0, length, self._most_rows), self.concurrency)
        any_sent = any(batch.sent for batch in batches)
        return joined(batches, signature, {} if any_sent else self._row_shapes(signature, len(texts)), len(texts))

    def _row_shapes(self, signature: Signature, texts: int) -> dict[str, tuple[int, ...]]:
        """Returns the shape of a row of each output, which no answer has shown."""
        if signature.column_per_text:
            return dict.fromkeys(signature.column_per_text, (texts,))
        described = self.metadata()["signatures"].get(signature.name, {}).get("outputs", {})
        shapes = {name: tuple(size or 0 for size in one["shape"][1:]) for name, one in described.items()}
        return {name: shapes.get(name, (0,) * (rank - 1)) for name, rank in signature.outputs.items()}
