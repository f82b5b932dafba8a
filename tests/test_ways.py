"""The ways through the package enter no more files than they do: what a reader must open to follow one.

`docs/architecture.md` shows them. Each number is what is there, and may fall.
"""

import pytest

from helpers.ways import WAYS, walked


@pytest.mark.parametrize(
    ("way", "most"),
    [
        pytest.param("image", 8, marks=pytest.mark.slow),
        pytest.param("image-in-graph", 8, marks=pytest.mark.slow),
        pytest.param("string", 8, marks=pytest.mark.slow),
        pytest.param("classify", 70, marks=pytest.mark.command),
    ],
)
def test_a_way_enters_few_files(way, most):
    files = walked(WAYS[way]()).files
    assert len(files) <= most, files
