"""Files that the formats share import none of them, and no format imports another but the kit of a SavedModel."""

import ast

import pytest

from helpers import ROOT

EXPORT = ROOT / "tf_clip" / "export"
MAY_IMPORT = {"": {""}, "savedmodel": {"", "savedmodel"}, "tflite": {"", "tflite"}, "kit": {"", "savedmodel", "kit"}}
PYTHON = [path for path in EXPORT.rglob("*.py") if path != EXPORT / "__init__.py"]
FILES = sorted(path.relative_to(EXPORT) for path in PYTHON)


@pytest.mark.parametrize("file", FILES, ids=str)
def test_a_format_imports_what_it_may(file):
    own = file.parts[0] if len(file.parts) > 1 else ""
    for node in ast.walk(ast.parse((EXPORT / file).read_text(encoding="utf-8"))):
        module = getattr(node, "module", None) or ""
        if isinstance(node, ast.ImportFrom) and module.startswith("tf_clip.export."):
            inside = module.removeprefix("tf_clip.export.").split(".")
            assert (inside[0] if len(inside) > 1 else "") in MAY_IMPORT[own], f"{file} must not import {module}"
