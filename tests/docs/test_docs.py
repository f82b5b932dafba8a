"""What README, docs and examples show is run: Python blocks, shell commands, scripts, links, demo output."""

import re
import shlex

import pytest

from helpers import ROOT
from helpers.forked import run_forked

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EXAMPLES = [
    ["examples/zero_shot.py", "examples/images/owl.png", "examples/images/bus.png"],
    ["examples/fast_inference.py", "an owl", "examples/images/owl.png", "examples/images/bus.png"],
    ["examples/in_graph.py", "examples/images/owl.png", "owl", "bicycle"],
]


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.fixture
def run(tmp_path_factory):
    """Runs `python COMMAND`, in the repository or in another folder, and returns what it prints."""
    printed = tmp_path_factory.mktemp("printed") / "output"
    return lambda command, folder=ROOT: run_forked(command, folder, printed)


@pytest.fixture
def workplace(tmp_path):
    """A folder that has the repository's examples, and that blocks may write into."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    return tmp_path


@pytest.mark.docs
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: page.name)
def test_python_blocks_run_in_order(page, workplace, run):
    (workplace / "page.py").write_text("\n".join(blocks(page, "python")), encoding="utf-8")
    run(["page.py"], workplace)


@pytest.mark.docs
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python litert")], ids=lambda page: page.name)
def test_python_blocks_that_need_litert_run_in_order(page, workplace, run):
    (workplace / "page.py").write_text("\n".join(blocks(page, "python litert")), encoding="utf-8")
    run(["page.py"], workplace)


@pytest.mark.docs
def test_commands_of_the_command_line_page_run(workplace, run):
    commands = "".join(blocks(ROOT / "docs" / "command_line.md", "sh")).splitlines()
    assert commands
    for command in commands:
        program, *arguments = shlex.split(command)
        assert program == "tf-clip"
        assert run(["-m", "tf_clip", *arguments], workplace)


@pytest.mark.docs
@pytest.mark.parametrize("command", EXAMPLES, ids=lambda command: command[0])
def test_examples_run(command, run):
    output = run(command)
    assert output.startswith(("examples/images/owl.png: owl", "examples/images/owl.png: 0.", "owl: "))


@pytest.mark.docs
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


@pytest.mark.docs
def test_the_adapters_example_has_one_of_each_family(tmp_path, run):
    images = ["examples/images/owl.png", "examples/images/bus.png"]
    output = run(["examples/adapters.py", str(tmp_path / "out"), *images])
    assert {path.name for path in (tmp_path / "out").iterdir()} < {line.split()[0] for line in output.splitlines()}


@pytest.mark.docs
def test_the_served_adapters_example_answers_each_row_by_its_own(tmp_path, run):
    output = run(["examples/serve_adapters.py", str(tmp_path / "out")])
    cosines = [[float(cell) for cell in re.findall(r"[\d.-]+", line)] for line in output.splitlines()[-3:]]
    assert [row[index] for index, row in enumerate(cosines)] == [1, 1, 1]
    assert max(cosines[0][1], cosines[0][2], cosines[1][2]) < 0.9


@pytest.mark.docs
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


@pytest.mark.docs
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


@pytest.mark.docs
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


@pytest.mark.docs
def test_the_export_example_classifies(tmp_path, run):
    images = ["examples/images/owl.png", "examples/images/pizza.png", "examples/images/README.md"]
    output = run(["examples/export_saved_model.py", str(tmp_path / "served"), *images])
    assert [line.split()[:2] for line in output.splitlines()] == [
        ["examples/images/owl.png:", "owl"],
        ["examples/images/pizza.png:", "pizza"],
        ["examples/images/README.md:", "not"],
    ]


@pytest.mark.docs
def test_the_litert_example_ranks(tmp_path, run):
    images = ["examples/images/bus.png", "examples/images/owl.png"]
    output = run(["examples/export_litert.py", str(tmp_path / "mobile"), "an animal", *images])
    assert [line.split(":")[0] for line in output.splitlines()] == images[::-1]


def names(output):
    """The words of a table, without scores and bars, which differ in the last digit between machines."""
    return [re.sub(r"-?\d\.\d{3}.*|[ ]+", " ", line).strip() for line in output.splitlines() if line.strip()]


@pytest.mark.docs
def test_the_readme_shows_what_the_demo_prints(run):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    commands = re.findall(r"^\t@\$\(BIN\)/tf-clip (.*)$", makefile, re.MULTILINE)
    shown = re.findall(r"<!-- demo:.*?-->\n```text\n(.*?)^```", PAGES[0].read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert len(commands) == len(shown) == 2
    for command, expected in zip(commands, shown, strict=True):
        arguments = shlex.split(command.replace("--html demo.html", ""))
        assert names(run(["-m", "tf_clip", *arguments])) == names(expected)


@pytest.mark.parametrize("page", [*PAGES, *sorted(ROOT.glob("examples/**/README.md"))], ids=lambda page: str(page.name))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
