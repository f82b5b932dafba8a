"""The page that `tf-clip evaluate` writes: figures, charts and the worst mistakes, all in one file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from tf_clip.cli import charts
from tf_clip.cli.page_templates import fill
from tf_clip.evaluation.classification import ClassificationReport

_TILES = {
    "top1": "top-1 accuracy",
    "top5": "top-5 accuracy",
    "mean_per_class": "mean per class",
    "ece": "calibration error",
}
_DIRECTIONS = {"image_to_text": "image → caption", "text_to_image": "caption → image"}
_MOST_CLASSES, _SOME_CLASSES, _PAIRS = 40, 30, 14


SHARED = (
    "{count:,} captions belong to other images, too. Equal captions tie, and a tie counts against the model. "
    "Where captions are classes, use `tf-clip evaluate zero-shot` instead."
)


def zero_shot_page(result: Mapping[str, Any], report: ClassificationReport, images: Sequence[str | None]) -> str:
    """Returns the page of a zero-shot evaluation.

    Args:
        result: the content of the JSON file.
        report: the report that the result was made from.
        images: for each of `result["worst"]` its image as a `data:` address, None if it cannot be shown.
    """
    metrics = result["metrics"]
    tiles = "".join(_tile(f"{metrics[name]:.1%}", said) for name, said in _TILES.items())
    curve = np.array(result["recall_curve"])
    parts = [
        f'<div class="tiles">{tiles}</div><div class="two">',
        _section("Right class among the first k", charts.recall_chart([("classes", curve)], 1 / len(report.labels))),
        _section(
            "Calibration: accuracy at each confidence",
            charts.calibration_chart(report.calibration)
            + '<p class="small">Bars: accuracy; orange: the difference to the confidence.</p>',
        ),
        "</div>",
        _confusion(report),
    ]
    if "robustness" in result:
        parts.append(_robustness(result["robustness"]))
    cards = [
        _card(
            [image],
            f'<span class="wrong">{escape(row["predicted"])}</span> {row["confidence"]:.1%}, but is '
            f'<span class="right">{escape(row["label"])}</span> {row["label_probability"]:.1%}',
            _file(row["image"]),
        )
        for row, image in zip(result["worst"], images, strict=True)
    ]
    parts.append(_mistakes("The mistakes with the highest confidence", cards))
    about = f"{_count(result['images'], 'image')} of {_count(len(report.labels), 'class', 'classes')} in "
    prompts = _count(len(result["templates"]), "prompt")
    return _page(result, about, f"zero-shot, {prompts}", parts)


def retrieval_page(result: Mapping[str, Any], images: Mapping[str, Sequence[Sequence[str | None]]]) -> str:
    """Returns the page of a retrieval evaluation.

    Args:
        result: the content of the JSON file.
        images: for each direction, for each of its worst rows, the images to show as `data:` addresses.
    """
    metrics = result["metrics"]
    tiles = "".join(
        _tile(f"{metrics[direction][name]:.1%}", f"{name}, {said}")
        for direction, said in _DIRECTIONS.items()
        for name in ("R@1", "R@10")
    )
    curves = [(said, np.array(result["recall_curve"][direction])) for direction, said in _DIRECTIONS.items()]
    parts = [
        f'<div class="tiles">{tiles}</div><div class="two">',
        _section("Recall", charts.recall_chart(curves, 1 / result["images"])),
        _section("All figures", _figures(metrics)),
        "</div>",
    ]
    if result["shared_captions"]:
        parts.append(_section("Shared captions", f"<p>{escape(SHARED.format(count=result['shared_captions']))}</p>"))
    for direction, rows in result["worst"].items():
        cards = [_retrieval_card(direction, row, shown) for row, shown in zip(rows, images[direction], strict=True)]
        parts.append(_mistakes(f"Found last: {_DIRECTIONS[direction]}", cards))
    about = f"{_count(result['images'], 'image')} with {_count(result['captions'], 'caption')} in "
    return _page(result, about, "retrieval", parts)


def _page(result: Mapping[str, Any], about: str, title: str, parts: Sequence[str]) -> str:
    body = "\n".join([*parts, _skipped(result["skipped"])])
    title = f"{escape(result['model'])}: {escape(title)}"
    return fill("evaluation.html", title=title, about=about + escape(result["data"]), body=body)


def _confusion(report: ClassificationReport) -> str:
    """Returns the confusion matrix, of many classes only the most confused ones, and a table of the worst pairs."""
    mistakes = report.confusion.copy()
    np.fill_diagonal(mistakes, 0)
    order = np.argsort(-mistakes, axis=None, kind="stable")[: _SOME_CLASSES * _SOME_CLASSES]
    pairs = [divmod(int(place), len(mistakes)) for place in order if mistakes.flat[place]]
    shown, labels, note = report.confusion, list(report.labels), ""
    if len(labels) > _MOST_CLASSES and pairs:
        # The classes of the worst pairs come first, so that confused classes are neighbors.
        chosen = list(dict.fromkeys(place for pair in pairs for place in pair))[:_SOME_CLASSES]
        shown = report.confusion[chosen]
        shown = np.column_stack([shown[:, chosen], shown.sum(axis=1) - shown[:, chosen].sum(axis=1)])
        note = f'<p class="small">The {len(chosen)} most confused of {len(labels)} classes.</p>'
        labels = [labels[place] for place in chosen] + ["all others"]
    elif len(labels) > _MOST_CLASSES:
        return _section("Confusion matrix", f"<p>All images of all {len(labels)} classes are right.</p>")
    chart = charts.confusion_chart(shown, labels)
    matrix = _section("Confusion matrix", f'{chart}{note}<p class="small">Row: the label; column: the prediction.</p>')
    if not pairs:
        return matrix
    rows = "".join(
        f"<tr><td>{escape(report.labels[row])}</td><td>{escape(report.labels[column])}</td>"
        f'<td class="number">{mistakes[row, column]} of {report.confusion[row].sum()}</td></tr>'
        for row, column in pairs[:_PAIRS]
    )
    head = '<thead><tr><th>label</th><th>prediction</th><th class="number">images</th></tr></thead>'
    return f'<div class="beside">{matrix}{_section("Most often confused", f"<table>{head}{rows}</table>")}</div>'


def _robustness(robustness: Mapping[str, Any]) -> str:
    alone = [(row["template"], row["top1"]) for row in robustness["templates"]]
    metrics = robustness["metrics"]
    said = (
        f"One prompt alone: {metrics['mean']:.1%} on average, standard deviation {metrics['std']:.1%}, "
        f"from {metrics['min']:.1%} to {metrics['max']:.1%}. All together: {metrics['ensemble']:.1%}."
    )
    rows = "".join(
        f'<tr><td>{escape(template)}</td><td class="number">{value:.1%}</td></tr>'
        for template, value in sorted(alone, key=lambda pair: -pair[1])
    )
    table = f'<details><summary class="small">All prompts</summary><table>{rows}</table></details>'
    chart = charts.template_chart(alone, metrics["ensemble"])
    return _section("Each prompt alone", f'{chart}<p class="small">{said}</p>{table}')


def _figures(metrics: Mapping[str, Mapping[str, float]]) -> str:
    heads = "".join(f'<th class="number">{said}</th>' for said in _DIRECTIONS.values())
    rows = []
    for name in metrics["image_to_text"]:
        form = ".1%" if name.startswith("R@") else ".3f" if name == "MRR" else ",.1f"
        cells = "".join(f'<td class="number">{metrics[direction][name]:{form}}</td>' for direction in _DIRECTIONS)
        rows.append(f"<tr><th>{escape(name.replace('_', ' '))}</th>{cells}</tr>")
    return f"<table><thead><tr><th></th>{heads}</tr></thead>{''.join(rows)}</table>"


def _retrieval_card(direction: str, row: Mapping[str, Any], images: Sequence[str | None]) -> str:
    caption = f'“<span class="right">{escape(row["caption"])}</span>”, found as number {row["rank"]:,}'
    file = _file(row["image"])
    if direction == "image_to_text":
        return _card(images, f'{caption}; first: “<span class="wrong">{escape(row["first"])}</span>”', file)
    return _card(images, f"{caption}; on the right what came first", f"{file}, {_file(row['first'])}")


def _file(path: str) -> str:
    """Returns an image's name and its folder's, which may be its class."""
    return "/".join(Path(path).parts[-2:])


def _card(images: Sequence[str | None], said: str, files: str) -> str:
    images = "".join(
        f'<img alt="" loading="lazy" src="{image}">' if image else "<span>cannot be shown</span>" for image in images
    )
    return (
        f'<figure><div class="shown">{images}</div><div>{said}</div><figcaption>{escape(files)}</figcaption></figure>'
    )


def _mistakes(heading: str, cards: Sequence[str]) -> str:
    return _section(heading, f'<div class="mistakes">{"".join(cards)}</div>' if cards else "<p>None.</p>")


def _skipped(rows: Sequence[Mapping[str, str]]) -> str:
    if not rows:
        return ""
    listed = "".join(f"<li>{escape(row['where'])}: {escape(row['reason'])}</li>" for row in rows)
    return _section("Skipped", f"<details><summary>{_count(len(rows), 'row')}</summary><ul>{listed}</ul></details>")


def _section(heading: str, inside: str) -> str:
    return f"<section><h2>{escape(heading)}</h2>{inside}</section>"


def _tile(number: str, said: str) -> str:
    return f'<div class="tile"><b>{number}</b><span>{escape(said)}</span></div>'


def _count(number: int, one: str, several: str | None = None) -> str:
    return f"{number:,} {one if number == 1 else several or one + 's'}"
