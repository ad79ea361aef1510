"""The pages: what they name exists, both READMEs say the same, and the README's Python example runs."""

import ast
import importlib
import os
import re
import shlex

import numpy as np
import pytest

from jseg.commands import cli

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
READMES = ("README.md", "README.zh-CN.md")
PAGES = READMES + tuple(os.path.join("docs", name) for name in sorted(os.listdir(os.path.join(ROOT, "docs"))) if name.endswith(".md"))
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)
RELEASE = re.compile(r"^\s*(?:#\s*)?release(?: \([\w.]+\))?: ", re.M)
OURS = re.compile(r"(?<![\w./-])((?:jseg|tests|scripts|docs|benchmarks)/[\w./-]*[\w/]|\.ci/run|setup\.py|Makefile|LICENSE)(?![\w*])")


def text(name):
    with open(os.path.join(ROOT, name), encoding="utf-8") as file:
        return file.read()


def exists(name):
    return os.path.exists(os.path.join(ROOT, name))


def fences(page, kind):
    return [body for found, body in FENCE.findall(text(page)) if found == kind]


def commands(page):
    """Every command line of a page's sh blocks, without comments, and those within its sentences, sorted."""
    lines = [line.split("#")[0].strip() for body in fences(page, "sh") for line in body.splitlines()]
    inline = re.findall(r"(?<!`)`((?:python|make|pip) [^`\n]*)`", FENCE.sub("", text(page)))
    return sorted(line for line in lines + inline if line)


def anchors(page):
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", text(page)), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def tree(page):
    """The paths of the README's tree: its file column, by indentation."""
    body, = [body for body in fences(page, "text") if "\njseg/\n" in body]
    paths, folders = [], []
    for line in body.splitlines():
        name = line.split()[0]
        del folders[(len(line) - len(line.lstrip())) // 2:]
        paths.append("".join(folders) + name)
        folders.append(name)
    return paths


def modules():
    for parent, folders, names in os.walk(os.path.join(ROOT, "jseg")):
        folders[:] = [name for name in folders if name != "__pycache__"]
        for name in names:
            if name.endswith(".py"):
                yield os.path.relpath(os.path.join(parent, name), ROOT).replace(os.sep, "/")


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", text(page)):
        name, _, anchor = target.partition("#")
        if not target.startswith("https://"):
            linked = os.path.normpath(os.path.join(os.path.dirname(page), name)) if name else page
            assert exists(linked), "%s links to %s" % (page, target)
            assert not anchor or anchor in anchors(linked), "%s links to %s" % (page, target)


@pytest.mark.parametrize("page", PAGES)
def test_files_that_are_named_exist(page):
    assert [name for name in sorted(set(OURS.findall(text(page)))) if not exists(name)] == []


@pytest.mark.parametrize("page", PAGES)
def test_tests_that_are_named_exist(page):
    functions, wrong = {}, []
    for name, function in sorted(set(re.findall(r"(tests/\w+\.py)::(\w+)", text(page)))):
        if name not in functions:
            parsed = ast.parse(text(name)).body if exists(name) else []
            functions[name] = {node.name for node in parsed if isinstance(node, ast.FunctionDef)}
        if not function.startswith("test_") or function not in functions[name]:
            wrong.append("%s::%s" % (name, function))
    assert wrong == []


def test_every_difference_names_its_test():
    rows = [line for line in text("docs/differences.md").splitlines() if line.startswith("| ") and not line.startswith(("| no.", "| what"))]
    assert len(rows) > 50
    assert [row for row in rows if "tests/test_" not in row.split("|")[-2] and row.split("|")[-2].strip() != "not yet: training"] == []
    numbers = [int(row.split("|")[1]) for row in rows if row.split("|")[1].strip().isdigit()]
    assert numbers == list(range(1, len(numbers) + 1)) and len(numbers) >= 41


def test_every_deliberate_difference_in_the_code_is_on_the_page():
    named = set(OURS.findall(text("docs/differences.md")))
    differing = [name for name in modules() if RELEASE.search(text(name))]
    assert len(differing) >= 8
    assert [name for name in differing if name not in named] == []


def test_both_readmes_give_the_same_commands():
    english, chinese = (commands(page) for page in READMES)
    assert english == chinese and {"make demo", "make test"} <= set(english) and len(english) > 12
    assert [fences(page, "python") for page in READMES][0] == fences(READMES[1], "python")
    assert tree(READMES[0]) == tree(READMES[1])
    links = [sorted(set(re.findall(r"https://[^)\s]+", text(page)))) for page in READMES]
    assert links[0] == links[1]
    assert [len(re.findall(r"^## |^### ", text(page), re.M)) for page in READMES][0] == len(re.findall(r"^## |^### ", text(READMES[1]), re.M))


@pytest.mark.parametrize("line", sorted({line for line in commands(READMES[0]) if re.match(r"python (scripts/|-m jseg .)", line)}))
def test_commands_of_the_readme_are_understood(line):
    words = shlex.split(line)[1:]
    name, words = (words[2], words[3:]) if words[0] == "-m" else (os.path.splitext(os.path.basename(words[0]))[0], words[1:])
    assert name in cli.commands() and exists("scripts/%s.py" % name)
    if words != ["--help"]:
        importlib.import_module("jseg.commands." + name).parser().parse_args(words)


def test_options_in_the_readme_exist():
    known = set()
    for name in cli.commands():
        for action in importlib.import_module("jseg.commands." + name).parser()._actions:
            known.update(action.option_strings)
    for page in PAGES[:2] + ("docs/formats.md",):
        assert [option for option in re.findall(r"`(--\w+)", text(page)) if option not in known] == []


def test_the_default_output_is_the_one_on_the_page():
    default = importlib.import_module("jseg.commands.test").parser().get_default("output_path")
    row, = [line for line in text("docs/differences.md").splitlines() if line.startswith("| 17 |")]
    assert default == "./results" and "`./results`" in row.split("|")[3]


@pytest.mark.parametrize("name, words", [("test", "settings and timings in"), ("demo", "the networks are untrained, so the pictures are noise")])
def test_output_in_the_readme_is_what_the_commands_print(name, words):
    printed = re.sub(r'"\s+f?"', "", text("jseg/commands/%s.py" % name))
    for page in READMES:
        shown = [line for body in fences(page, "text") for line in body.splitlines() if line.startswith("jseg %s: " % name)]
        assert shown and all(words in line for line in shown) and words in printed


def test_the_tree_lists_what_is_there():
    """Its part below jseg/ is held to the modules by test_house.py."""
    assert [path for path in tree(READMES[0]) if not exists(path)] == []
    assert {path for path in tree(READMES[0]) if path.count("/") == 1 and path.endswith("/")} >= {"jseg/", "scripts/", "tests/", "docs/"}
    for page in READMES:
        line = next(line for line in text(page).splitlines() if line.startswith("scripts/"))
        assert sorted(re.findall(r"\w+\.py", line)) == sorted(name for name in os.listdir(os.path.join(ROOT, "scripts")) if name.endswith(".py"))


@pytest.mark.parametrize("page", PAGES)
def test_nothing_is_left_to_be_filled_in(page):
    assert re.findall(r"@@\w*@@|\?\?\w*", text(page)) == []


def test_the_picture_is_by_line_6():
    for page in READMES:
        head = text(page).splitlines()[:6]
        assert head[0].startswith("# jseg") and any("](docs/landscape_grid.jpg)" in line for line in head)


def test_the_stages_file_of_formats_md_is_accepted(tmp_path):
    from jseg.ldm import presets
    from jseg.ldm.pipelines import load_pipeline

    example, = [body for body in fences("docs/formats.md", "json") if "stages" in body]
    (tmp_path / "stages.json").write_text(example)
    assert load_pipeline(tmp_path / "stages.json").float_handoff
    page = text("docs/formats.md")
    for kind in (presets.Stage, presets.Pipeline):
        assert [name for name in kind.__dataclass_fields__ if "`%s`" % name not in page] == []
    for number, stage in enumerate(presets.PIPELINES["release"].stages):
        row = "| stage %d | guidance %s, `%s`, start index %d%s |" % (
            number, stage.guidance, stage.respacing, stage.start_index, ", colour transfer" if stage.color_transfer else "")
        assert row in page and presets.PIPELINES["fine"].stages[number] == stage


def test_the_python_example_runs(tmp_path, monkeypatch):
    """On the tiny networks under the names of the official files, and with shorter stages."""
    from jseg import checkpoint, images
    from jseg.ldm import layout, recipe
    from jseg.ldm.presets import AUTOENCODERS, PIPELINES, UNETS, Pipeline, Stage

    short = Pipeline((Stage(3.5, "ddim10", 3), Stage(3.7, "ddim10", 2, True)), aligned=False, float_handoff=False, rounding="truncate")
    monkeypatch.setitem(PIPELINES, "release", short)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    unet, autoencoder = UNETS["tiny"], AUTOENCODERS["tiny"]
    checkpoint.save("checkpoints/average-176k-266k.pkl", recipe.fill(layout.unet_shapes(unet)), unet)
    checkpoint.save("checkpoints/autoencoder.pkl", recipe.fill(layout.autoencoder_shapes(autoencoder)), autoencoder)
    width, height = unet.width * autoencoder.downsampling, unet.height * autoencoder.downsampling
    random = np.random.default_rng(0)
    images.save_picture("label.png", random.integers(0, 29, (height, width)).astype(np.uint8))
    images.save_picture("reference.jpg", random.integers(0, 256, (height, width, 3)).astype(np.uint8))
    example, = fences(READMES[0], "python")
    exec(compile(example, "README.md", "exec"), {})
    assert images.read_picture("picture.jpg").shape == (height, width, 3)
