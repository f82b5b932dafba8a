"""How well two colors of a page can be told apart."""

from __future__ import annotations


def contrast(one: str, other: str) -> float:
    """Compares two colors as a style sheet writes them, `#rgb` or `#rrggbb`; 1 is alike, 21 the most there is.

    Source: WCAG 2.2, contrast ratio.
    """
    darker, lighter = sorted((_luminance(one.strip()), _luminance(other.strip())))
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(color: str) -> float:
    digits = color.removeprefix("#")
    digits = "".join(2 * digit for digit in digits) if len(digits) == 3 else digits
    parts = [int(digits[start : start + 2], 16) / 255 for start in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
