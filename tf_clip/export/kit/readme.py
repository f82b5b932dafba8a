"""The README of a serving kit: how to run this very model on a server, and how to ask it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

from tf_clip.export.kit.batching import Batching
from tf_clip.export.kit.latency import Timed
from tf_clip.export.savedmodel.exported_model import ExportedModel

_TEMPLATE = Path(__file__).parent / "templates" / "readme"

# As JSON, in a shell's here-document; and in Python, as the script below reads the image.
_IMAGE = '{"b64": "$(base64 < image.jpg | tr -d \'\\n\')"}'
_AS_JSON = {
    "image_bytes": f"[{_IMAGE}]",
    "image_pixels": "[[[[255, 0, 0], [0, 0, 255]], [[0, 255, 0], [255, 255, 255]]]]",
    "text": '["a photo of an owl", "a bus"]',
}
_AS_PYTHON = {
    "image_bytes": "[image]",
    "image_pixels": "np.zeros((1, 64, 64, 3), np.uint8)",
    "text": '["a photo of an owl", "a bus"]',
}
_OF_TOKENS = ("input_ids", "attention_mask")
_NOTES = {
    "encode_image_pixels": "All images of one size; a server that batches wants one size from all clients.",
    "encode_tokens": "Ids of the model's own tokenizer, padded after the end token; a server that batches wants one "
    "length from all clients. `encode_text` needs none of this.",
    "similarity": "**Not on a server that batches**: it puts the rows of several requests together, and images and "
    "texts are not rows of one table. The call below is refused there, and one with as many texts as images may "
    "come back with other people's texts in its softmax. Serve a copy of the version's folder without "
    "`batching_params.pbtxt` under another name in `models.config`, which with the flags of `compose.yaml` is not "
    "batched (read in the server's code, not tried), or compare the results of `encode_image` and `encode_text`.",
    "serving_default": "What a request without a `signature_name` gets.",
}


def readme(exported: ExportedModel, name: str, batching: Batching, curves: Mapping[str, Sequence[Timed]]) -> str:
    """Returns the README.

    Args:
        exported: the version.
        name: the model's name on the server.
        batching: how the server batches.
        curves: from a signature to its timed batches.
    """
    signatures = exported.description["signatures"]
    return Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(
        name=name,
        version=exported.version,
        signatures=_signature_table(signatures),
        calls="\n".join(_call(name, signature, one) for signature, one in sorted(signatures.items())),
        grpc_calls="\n".join(_grpc_call(signature, one) for signature, one in sorted(signatures.items())),
        classify='    print(client.classify(["image.jpg"]).labels)\n' if "classify" in signatures else "",
        curve=_curve_table(curves),
        max_batch_size=batching.max_batch_size,
        allowed_batch_sizes=", ".join(map(str, batching.allowed_batch_sizes)),
        batch_timeout_micros=batching.batch_timeout_micros,
        num_batch_threads=batching.num_batch_threads,
        max_enqueued_batches=batching.max_enqueued_batches,
        measured=" and ".join(f"`{signature}`" for signature in curves),
    )


def _signature_table(signatures: Mapping[str, Any]) -> str:
    def side(tensors: Mapping[str, Any]) -> str:
        shown = []
        for name, one in tensors.items():
            axes = ", ".join("any" if size is None else str(size) for size in one["shape"])
            shown.append(f"`{name}` {one['dtype']} [{axes}]")
        return "<br>".join(shown)

    rows = [
        f"| `{name}` | {side(one['inputs'])} | {side(one['outputs'])} | {'yes' if one['batchable'] else 'no'} |"
        for name, one in sorted(signatures.items())
    ]
    return "\n".join(["| signature | inputs | outputs | may be batched |", "|---|---|---|---|", *rows])


def _rows_alike(described: Mapping[str, Any], examples: Mapping[str, str]) -> dict[str, str]:
    """Returns example inputs; where rows are pairs, the same number of texts and images."""
    values = {key: examples.get(key) or _token_rows(key, one["shape"][1]) for key, one in described["inputs"].items()}
    if described["batchable"] and {"image_bytes", "text"} <= values.keys():
        values["text"] = '["a photo of an owl"]'
    return values


def _token_rows(key: str, length: int | None) -> str:
    """Returns one row of token ids, or of their mask, of the length that is asked for."""
    row = [1] * (length or 3) if key == "attention_mask" else [0, 1, 2] if length is None else [0] * length
    return str([row])


def _call(name: str, signature: str, described: Mapping[str, Any]) -> str:
    values = _rows_alike(described, _AS_JSON)
    inputs = ", ".join(f'"{key}": {value}' for key, value in values.items())
    notes = f"{_NOTES[signature]}\n\n" if signature in _NOTES else ""
    return (
        f"### `{signature}`\n\n{notes}```sh\n"
        f"curl --silent --show-error --fail-with-body \\\n"
        f"  -H 'Content-Type: application/json' -d @- http://localhost:8501/v1/models/{name}:predict <<END\n"
        f'{{"signature_name": "{signature}", "inputs": {{{inputs}}}}}\nEND\n```\n'
    )


def _grpc_call(signature: str, described: Mapping[str, Any]) -> str:
    values = _rows_alike(described, _AS_PYTHON)
    arrays = {key: f"np.array({value}, np.int32)" if key in _OF_TOKENS else value for key, value in values.items()}
    arguments = ", ".join(f"{key}={value}" for key, value in arrays.items())
    remark = "" if described["batchable"] else "  # not on a server that batches"
    return f'print(predict("{signature}", {arguments})){remark}'


def _curve_table(curves: Mapping[str, Sequence[Timed]]) -> str:
    sizes = sorted({timed.batch_size for curve in curves.values() for timed in curve})
    lines = [
        "| rows in a batch | " + " | ".join(f"`{name}`" for name in curves) + " |",
        "|---" * (len(curves) + 1) + "|",
    ]
    for size in sizes:
        cells = []
        for curve in curves.values():
            found = [one.seconds_per_row / curve[0].seconds for one in curve if one.batch_size == size]
            cells.append(f"{found[0]:.2f}" if found else "not measured")
        lines.append(f"| {size} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
