"""How the package is built: which folder may import which, no circle of files, and no family named by those it serves.

All is read from the syntax trees, imports inside functions included.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from helpers import ROOT

PACKAGE = ROOT / "tf_clip"
# Low to high. A file imports from its own part and from lines above; parts of one line do not import each other.
FLOORS = [
    {"array_memory", "errors", "files", "machine", "unit_length"},
    {"layers"},
    {"checkpoints.readers"},  # what a file holds, and that it is broken
    {"families"},  # the record: what a family is, and the table
    {"losses", "checkpoints"},
    {"preprocessing"},
    {"adapters"},
    {"models"},
    {"families.each"},  # the rows: towers, layouts, processing
    {"tasks", "client"},
    {"data"},
    {"evaluation"},
    {"training"},
    {"export"},
    {"inference"},
    {"benchmark"},
    {"serving"},
    {"cli"},
]
FLOOR_OF = {part: floor for floor, parts in enumerate(FLOORS) for part in parts}
# Of the package, what is served needs nothing but this.
GROUND = {"tf_clip", *FLOORS[0]}
MAY_IMPORT_TENSORFLOW = {
    *("preprocessing", "data", "training", "export", "inference", "benchmark", "serving"),
    # On its backend alone, for what `keras.ops` has no name for: loops of one round at a time, and replicas.
    *("losses.rows", "models.encoding_in_chunks", "models.replicas"),
    # Likewise, to give it an array's memory.
    "array_memory",
    # For protocol buffers of TensorFlow Serving, and for its start-up messages.
    *("client.grpc_client", "cli.quiet_start"),
}
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
TREES = {module: ast.parse(path.read_text(encoding="utf-8")) for module, path in FILES.items()}
ROOTS = {"tf_clip", "tf_clip.__main__"}


def names_imported(tree: ast.Module) -> Iterator[str]:
    """Yields each name as `package.module.name`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def module_of(name: str) -> str:
    """Returns the file that a name is imported from, "" for other packages' names."""
    while name and name not in FILES:
        name = name.rpartition(".")[0]
    return name


ARROWS = {module: {module_of(name) for name in names_imported(tree)} - {module, ""} for module, tree in TREES.items()}


def part_of(module: str) -> str:
    folder, _, rest = module.removeprefix("tf_clip.").partition(".")
    if folder == "families" and FILES[module].parent.name != "families":
        return "families.each"
    if folder == "checkpoints" and rest.startswith(("readers", "errors", "files")):
        return "checkpoints.readers"
    return folder


@pytest.mark.parametrize("module", sorted(FILES.keys() - ROOTS))
def test_imports_point_downwards(module):
    part = part_of(module)
    for other in ARROWS[module] - {"tf_clip"}:
        below = part_of(other)
        assert below == part or FLOOR_OF[below] < FLOOR_OF[part], f"{module} must not import {other}"
    if part == "serving":
        assert {part_of(other) for other in ARROWS[module]} <= GROUND | {"serving"}


@pytest.mark.parametrize("module", sorted(FILES))
def test_other_packages_are_imported_where_they_may_be(module):
    inside = module.removeprefix("tf_clip.")
    for name in names_imported(TREES[module]):
        root = name.partition(".")[0]
        assert not name.startswith("keras.src"), "Keras's private modules change without notice"
        assert root not in ("torch", "transformers") or inside == "models.outputs"
        if root in ("tensorflow", "tensorflow_text"):
            assert {inside, part_of(module)} & MAY_IMPORT_TENSORFLOW, f"{module} imports {name}"


def test_no_files_import_one_another_in_a_circle():
    left = {module: arrows - ROOTS for module, arrows in ARROWS.items() if module not in ROOTS}
    while free := {module for module, arrows in left.items() if not arrows & left.keys()}:
        left = {module: arrows for module, arrows in left.items() if module not in free}
    assert not left, f"there is a circle among {sorted(left)}"


IN_FAMILIES = {module for module in FILES if module.startswith("tf_clip.families.") and module.count(".") > 2}


def classes_of(modules):
    return {node.name for module in modules for node in ast.walk(TREES[module]) if isinstance(node, ast.ClassDef)}


# A name that others have, too, is nobody's.
CLASSES_OF_FAMILIES = classes_of(IN_FAMILIES) - classes_of(FILES.keys() - IN_FAMILIES)


def named_in(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yields the line and the name of everything that code names; strings and comments name nothing."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute):
            yield node.lineno, node.attr
        elif isinstance(node, ast.alias):
            yield node.lineno, node.name.rpartition(".")[2]


@pytest.mark.parametrize(
    "module",
    sorted(FILES.keys() - {"tf_clip"} - {module for module in FILES if module.startswith("tf_clip.families.")}),
)
def test_no_family_is_named_outside_its_folder(module):
    found = [f"line {line}: {name}" for line, name in named_in(TREES[module]) if name in CLASSES_OF_FAMILIES]
    assert not found, f"{module} must ask the family's record instead: {found}"


def test_families_have_classes():
    """Without them the test above would find nothing."""
    assert {"CLIPConfig", "CLIPModel", "CLIPTextEncoder", "CLIPResNetImageEncoder"} <= CLASSES_OF_FAMILIES
