"""The scripts of examples run, and do what they say."""

import re

import pytest

from helpers import ROOT

pytestmark = pytest.mark.docs
EXAMPLES = [
    ["examples/zero_shot.py", "examples/images/owl.png", "examples/images/bus.png"],
    ["examples/fast_inference.py", "an owl", "examples/images/owl.png", "examples/images/bus.png"],
    ["examples/in_graph.py", "examples/images/owl.png", "owl", "bicycle"],
]


@pytest.mark.parametrize("command", EXAMPLES, ids=lambda command: command[0])
def test_examples_run(command, run):
    output = run(command)
    assert output.startswith(("examples/images/owl.png: owl", "examples/images/owl.png: 0.", "owl: "))


def test_the_classifier_example_learns_its_folders(tmp_path, run):
    classes = {"fruit": ("apple", "strawberry"), "vehicles": ("bicycle", "bus", "sailboat")}
    for name, images in classes.items():
        (tmp_path / name).mkdir()
        for image in images:
            (tmp_path / name / f"{image}.png").symlink_to(ROOT / "examples" / "images" / f"{image}.png")
    folders = [str(tmp_path / name) for name in classes]
    output = run(["examples/image_classifier.py", str(tmp_path / "out"), *folders])
    assert output.split("\n")[:-1] == [f"{image}.png: {name}" for name in classes for image in classes[name]]
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_the_adapters_example_has_one_of_each_family(tmp_path, run):
    images = ["examples/images/owl.png", "examples/images/bus.png"]
    output = run(["examples/adapters.py", str(tmp_path / "out"), *images])
    assert {path.name for path in (tmp_path / "out").iterdir()} < {line.split()[0] for line in output.splitlines()}


def test_the_served_adapters_example_answers_each_row_by_its_own(tmp_path, run):
    output = run(["examples/serve_adapters.py", str(tmp_path / "out")])
    cosines = [[float(cell) for cell in re.findall(r"[\d.-]+", line)] for line in output.splitlines()[-3:]]
    assert [row[index] for index, row in enumerate(cosines)] == [1, 1, 1]
    assert max(cosines[0][1], cosines[0][2], cosines[1][2]) < 0.9


def test_the_evaluation_examples_print_their_figures(tmp_path, run):
    for name, images in {"fruit": ("apple", "strawberry"), "bus": ("bus",)}.items():
        (tmp_path / name).mkdir()
        for image in images:
            (tmp_path / name / f"{image}.png").symlink_to(ROOT / "examples" / "images" / f"{image}.png")
    output = run(["examples/evaluate.py", str(tmp_path)])
    assert [line.split(":")[0].strip() for line in output.splitlines()] == [
        *("top1", "top5", "mean_per_class", "ece"),
        *("bus", "fruit"),
    ]
    rows = [
        ("image", "caption"),
        ("fruit/apple.png", "red apple"),
        ("fruit/apple.png", "apple"),
        ("bus/bus.png", "bus"),
    ]
    (tmp_path / "pairs.csv").write_text("\n".join(map(",".join, rows)), encoding="utf-8")
    lines = run(["examples/retrieval.py", str(tmp_path / "pairs.csv")]).splitlines()
    names = ["R@1", "R@5", "R@10", "MRR", "mean_rank", "median_rank"]
    assert [line.split()[0] for line in lines[1:]] == names
    assert lines[2].split()[1:] == ["1.000", "1.000"]


@pytest.mark.parametrize("example", ["fine_tune.py", "lit.py"])
def test_the_training_examples_learn_and_leave_out_what_is_bad(tmp_path, example, run):
    images = sorted((ROOT / "examples" / "images").glob("*.png"))
    rows = [f"{path},{path.stem}" for path in images] + ["nowhere.png,nothing"]
    (tmp_path / "pairs.csv").write_text("\n".join(["image,caption", *rows]), encoding="utf-8")
    command = [f"examples/{example}", str(tmp_path / "pairs.csv"), str(tmp_path / "out")]
    output = run(command)
    losses = [float(loss) for loss in re.findall(r"loss (\d\.\d+)", output)]
    assert len(losses) == 4
    assert "left out" in output
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_the_probe_example_tells_classes_apart(tmp_path, run):
    classes = {"animals": ("elephant", "owl"), "vehicles": ("bicycle", "bus", "sailboat", "rocket")}
    for name, images in classes.items():
        (tmp_path / "classes" / name).mkdir(parents=True)
        for image in images:
            target = ROOT / "examples" / "images" / f"{image}.png"
            (tmp_path / "classes" / name / f"{image}.png").symlink_to(target)
    output = run(["examples/linear_probe.py", str(tmp_path / "classes"), str(tmp_path / "out")])
    assert output.startswith("C = ")
    assert {f"{image}.png: {name}" for name in classes for image in classes[name]} <= set(output.splitlines())
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_the_export_example_classifies(tmp_path, run):
    images = ["examples/images/owl.png", "examples/images/pizza.png", "examples/images/README.md"]
    output = run(["examples/export_saved_model.py", str(tmp_path / "served"), *images])
    assert [line.split()[:2] for line in output.splitlines()] == [
        ["examples/images/owl.png:", "owl"],
        ["examples/images/pizza.png:", "pizza"],
        ["examples/images/README.md:", "not"],
    ]


def test_the_litert_example_ranks(tmp_path, run):
    images = ["examples/images/bus.png", "examples/images/owl.png"]
    output = run(["examples/export_litert.py", str(tmp_path / "mobile"), "an animal", *images])
    assert [line.split(":")[0] for line in output.splitlines()] == images[::-1]
