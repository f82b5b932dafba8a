"""Charts as SVG elements of a page: no scripts; their style is in pages/evaluation.html."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

import numpy as np

from tf_clip.evaluation.calibration import CalibrationBin

_WIDTH, _HEIGHT = 460, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 20, 14, 44
_MARKED = (1, 5, 10)
_WRITTEN_CELLS = 24


def recall_chart(curves: Sequence[tuple[str, np.ndarray]], chance: float) -> str:
    """Draws recall at k, with k on a logarithmic axis.

    Args:
        curves: one or two names with the recalls at 1, 2, 3 and so on, of one length.
        chance: the recall at 1 of a random order.

    Returns:
        An `<svg>` element, with a legend before it where there are two curves.
    """
    longest = len(curves[0][1])

    def place(k: float) -> float:
        return math.log(k) / math.log(longest) if longest > 1 else 0.5

    ticks = [k for k in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if k <= longest]
    parts = [_frame([(place(k), str(k)) for k in ticks], "k", "found among the first k")]
    even = [(place(k), min(1.0, chance * k)) for k in range(1, longest + 1)]
    parts.append(f'<polyline class="even" points="{_points(even)}"><title>a random order</title></polyline>')
    for kind, (name, values) in zip(("first", "second"), curves, strict=False):
        line = [(place(k), value) for k, value in enumerate(values, 1)]
        parts.append(f'<g class="{kind}"><polyline class="line" points="{_points(line)}"/>')
        for k in _MARKED:
            if k <= longest:
                x, y = _point(place(k), values[k - 1])
                said = f"{escape(name)}: {values[k - 1]:.1%} among the first {k}"
                parts.append(f'<circle class="dot" cx="{x}" cy="{y}" r="4.5"><title>{said}</title></circle>')
        parts.append("</g>")
    named = "".join(
        f'<span class="{kind}">{escape(name)}</span>'
        for kind, (name, _) in zip(("first", "second"), curves, strict=False)
    )
    legend = f'<p class="legend">{named}</p>' if len(curves) > 1 else ""
    return legend + _svg(_WIDTH, _HEIGHT, "Recall at k", parts)


def calibration_chart(bins: Sequence[CalibrationBin]) -> str:
    """Draws the accuracy at each confidence, and the difference between the two."""
    ticks = [(share, f"{share:.0%}") for share in (0.0, 0.25, 0.5, 0.75, 1.0)]
    parts = [_frame(ticks, "confidence", "accuracy")]
    for part in bins:
        if not part.count:
            continue
        (x, y), (right, bottom) = _point(part.low, part.accuracy), _point(part.high, 0.0)
        _, sure = _point(0.0, part.confidence)
        said = f"{part.count} images, confidence {part.confidence:.1%}, accuracy {part.accuracy:.1%}"
        width = round(right - x - 2, 1)
        parts.append(f'<g class="first"><title>{said}</title>')
        parts.append(f'<rect class="filled" x="{x + 1}" y="{y}" width="{width}" height="{round(bottom - y, 1)}"/>')
        gap = f'y="{min(y, sure)}" width="{width}" height="{round(abs(y - sure), 1)}"'
        parts.append(f'<rect class="gap" x="{x + 1}" {gap}/></g>')
    parts.append(f'<polyline class="even" points="{_points([(0, 0), (1, 1)])}"/>')
    return _svg(_WIDTH, _HEIGHT, "Calibration", parts)


def template_chart(values: Sequence[tuple[str, float]], together: float) -> str:
    """Draws a dot for each template at its accuracy, and a line at that of all together."""
    low = min(together, *(value for _, value in values))
    high = max(together, *(value for _, value in values))
    low, high = max(0.0, low - 0.02), min(1.0, high + 0.02)

    def across(value: float) -> float:
        return round(_LEFT + (value - low) / (high - low) * (2 * _WIDTH - _LEFT - _RIGHT), 1)

    places = [round(across(value) / 9) for _, value in values]
    base, parts, used = 32 + 9 * min(9, max(map(places.count, places))), [], dict[int, int]()
    for name, value in sorted(values, key=lambda pair: pair[1]):
        x = across(value)
        stacked = used.get(round(x / 9), 0)
        used[round(x / 9)] = stacked + 1
        said = f"{value:.1%}: {escape(name)}"
        parts.append(f'<circle class="dot" cx="{x}" cy="{base - 8 - 9 * min(stacked, 8)}" r="4.5">')
        parts.append(f"<title>{said}</title></circle>")
    line = across(together)
    ticks = "".join(
        f'<text x="{across(value)}" y="{base + 18}" text-anchor="{anchor}" class="faint">{value:.1%}</text>'
        for value, anchor in ((low, "start"), (high, "end"))
    )
    anchor = "end" if line > _WIDTH else "start"
    beside = line - 6 if anchor == "end" else line + 6
    return _svg(
        2 * _WIDTH,
        base + 28,
        "Accuracy with each template",
        [
            f'<path class="axis" d="M{_LEFT} {base}H{2 * _WIDTH - _RIGHT}"/>{ticks}<g class="first">',
            *parts,
            f'</g><path class="even" d="M{line} 4V{base}"/>',
            f'<text x="{beside}" y="14" text-anchor="{anchor}">all together: {together:.1%}</text>',
        ],
    )


def confusion_chart(confusion: np.ndarray, labels: Sequence[str]) -> str:
    """Draws a confusion matrix; the darker a cell, the larger its share of the row.

    Args:
        confusion: int `[rows, columns]`; the diagonal counts right predictions.
        labels: the names of the columns, and of the rows, which may be fewer.
    """
    rows, columns = confusion.shape
    size = 30 if columns <= _WRITTEN_CELLS else 17
    margin = min(160, 16 + 6.4 * max(map(len, labels)))
    width, height = margin + columns * size + 40, margin + rows * size + 8
    totals = np.maximum(confusion.sum(axis=1), 1)
    parts = []
    for row in range(rows):
        y = margin + row * size
        name = escape(_cut(labels[row]))
        parts.append(f'<text x="{margin - 8}" y="{y + size / 2 + 4}" text-anchor="end">{name}</text>')
        for column in range(columns):
            count, x = int(confusion[row, column]), margin + column * size
            share = count / totals[row]
            kind = "first" if row == column else "second"
            said = f"{escape(labels[row])} predicted as {escape(labels[column])}: {count} of {totals[row]}"
            shade = f'fill-opacity="{0.12 + 0.88 * share:.2f}"' if count else 'style="fill: var(--rail)" opacity=".45"'
            parts.append(f'<g class="{kind}"><title>{said}</title>')
            parts.append(f'<rect class="cell filled" x="{x}" y="{y}" width="{size}" height="{size}" rx="3" {shade}/>')
            if count and columns <= _WRITTEN_CELLS:
                tone = ' class="on"' if share > 0.55 else ""
                parts.append(
                    f'<text{tone} x="{x + size / 2}" y="{y + size / 2 + 4}" text-anchor="middle">{count}</text>'
                )
            parts.append("</g>")
    for column in range(columns):
        x = margin + column * size + size / 2 + 4
        name = escape(_cut(labels[column]))
        parts.append(f'<text transform="translate({x} {margin - 8}) rotate(-90)">{name}</text>')
    svg = _svg(width, height, "Confusion matrix", parts)
    return f'<div class="wide"><div style="width: {width:.0f}px">{svg}</div></div>'


def _cut(label: str) -> str:
    return label if len(label) <= 22 else label[:21] + "…"


def _frame(ticks: Sequence[tuple[float, str]], x_name: str, y_name: str) -> str:
    """Returns the axes: shares upwards, the given ticks to the right."""
    parts = []
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        _, y = _point(0.0, share)
        parts.append(f'<path class="axis" d="M{_LEFT} {y}H{_WIDTH - _RIGHT}"/>')
        parts.append(f'<text class="faint" x="{_LEFT - 8}" y="{y + 4}" text-anchor="end">{share:.0%}</text>')
    for place, text in ticks:
        x, y = _point(place, 0.0)
        parts.append(f'<text class="faint" x="{x}" y="{y + 18}" text-anchor="middle">{text}</text>')
    x, y = _point(1.0, 0.0)
    parts.append(f'<text class="faint" x="{x}" y="{y + 36}" text-anchor="end">{x_name} →</text>')
    parts.append(f'<text class="faint" x="{_LEFT}" y="{y + 36}">↑ {y_name}</text>')
    return "".join(parts)


def _point(x: float, y: float) -> tuple[float, float]:
    return (
        round(_LEFT + x * (_WIDTH - _LEFT - _RIGHT), 1),
        round(_TOP + (1.0 - y) * (_HEIGHT - _TOP - _BOTTOM), 1),
    )


def _points(line: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x},{y}" for x, y in (_point(*pair) for pair in line))


def _svg(width: float, height: float, name: str, parts: Sequence[str]) -> str:
    inside = "".join(parts)
    return f'<svg viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{name}">{inside}</svg>'
