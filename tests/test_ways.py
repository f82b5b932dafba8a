"""The ways through the package enter no more files than they do: what a reader must open to follow one.

`docs/architecture.md` shows them. Each number is what is there, which may fall.
"""

import pytest

from helpers.ways import WAYS, walked


@pytest.mark.parametrize(
    ("way", "most"),
    [
        pytest.param("image", 8, marks=pytest.mark.slow),
        pytest.param("image-in-graph", 8, marks=pytest.mark.slow),
        pytest.param("string", 8, marks=pytest.mark.slow),
        # Opening one asks each layout whether the files are its own, and makes the model.
        pytest.param("checkpoint", 31, marks=pytest.mark.slow),
        # The two ways above, both in a graph, are 12 of them.
        pytest.param("pair", 22, marks=pytest.mark.slow),
        pytest.param("classify", 70, marks=pytest.mark.command),
    ],
)
def test_a_way_enters_few_files(way, most):
    files = walked(WAYS[way]()).files
    assert len(files) <= most, files
