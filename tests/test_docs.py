"""The pages: what they name exists, translations say the same, commands parse, tables are the
code's, the Python examples run.
"""

import ast
import importlib
import json
import os
import re
import shlex

import numpy as np
import pytest
from support.places import ROOT

from jseg.commands import cli

ENGLISH, CHINESE = READMES = ("README.md", "README.zh-CN.md")
TRANSLATED = {"README.md": "README.zh-CN.md", "docs/training.md": "docs/training.zh-CN.md"}
DIFFERENCES, FORMATS, TRAINING, FLOWSEG, INFERENCE = (
    "docs/differences.md docs/formats.md docs/training.md docs/flowseg.md docs/inference.md"
).split()
PAGES = READMES + ("CONTRIBUTING.md", "jseg/weights/CARD.md")
PAGES += tuple(
    "docs/" + name
    for name in sorted(os.listdir(os.path.join(ROOT, "docs")))
    if name.endswith(".md")
)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)
COMMENT = re.compile(
    r"^\s*(?:#\s*)?release(?: \([\w.]+\))?: ", re.M
)  # of a deliberate difference, in code or docstring
CALL = re.compile(
    r"^(?:mpirun .*?)?python (?=scripts/|-m jseg .)"
)  # of a command of ours, alone or in several processes
FILE = re.compile(
    r"(?<![\w./-])((?:jseg|tests|scripts|docs|benchmarks|examples)/[\w./-]*[\w/]"
    r"|\.ci/run|setup\.py|Makefile|LICENSE)(?![\w*])"
)


def text(name):
    with open(os.path.join(ROOT, name), encoding="utf-8") as file:
        return file.read()


def exists(name):
    return os.path.exists(os.path.join(ROOT, name))


def fences(page, kind):
    return [body for language, body in FENCE.findall(text(page)) if language == kind]


def commands(page):
    """Every command line of a page's sh blocks, without comments, and those within its sentences,
    sorted.
    """
    lines = [
        line.split("#")[0].strip() for body in fences(page, "sh") for line in body.splitlines()
    ]
    inline = re.findall(r"(?<!`)`((?:python|make|pip|mpirun) [^`\n]*)`", FENCE.sub("", text(page)))
    return sorted(line for line in lines + inline if line)


def anchors(page):
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", text(page)), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def rows(page):
    """The cells of every table row of a page, without headings."""
    lines = [line for line in text(page).splitlines() if line.startswith("| ")]
    return [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in lines
        if not line.startswith(("| no. ", "| what "))
    ]


# What is named is there
# ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", text(page)):
        name, _, anchor = target.partition("#")
        if not target.startswith("https://"):
            linked = os.path.normpath(os.path.join(os.path.dirname(page), name)) if name else page
            assert exists(linked) and (not anchor or anchor in anchors(linked)), target


@pytest.mark.parametrize("page", PAGES)
def test_files_that_are_named_exist(page):
    assert [name for name in sorted(set(FILE.findall(text(page)))) if not exists(name)] == []


@pytest.mark.parametrize("page", PAGES)
def test_tests_that_are_named_exist(page):
    wrong = []
    for name, function in sorted(set(re.findall(r"(tests/[\w/]+\.py)::(\w+)", text(page)))):
        defined = (
            {node.name for node in ast.parse(text(name)).body if isinstance(node, ast.FunctionDef)}
            if exists(name)
            else ()
        )
        if not function.startswith("test_") or function not in defined:
            wrong.append(f"{name}::{function}")
    assert wrong == []


@pytest.mark.parametrize("page", PAGES)
def test_nothing_is_left_to_be_filled_in(page):
    assert re.findall(r"@@\w*@@|\?\?\w*", text(page)) == []


# docs/differences.md
# ------------------------------------------------------------------------------------------------


def test_every_difference_names_its_test():
    table = rows(DIFFERENCES)
    assert len(table) > 50 and {len(cells) for cells in table} == {4}
    assert [cells for cells in table if not re.search(r"`tests/[\w/]*test_", cells[3])] == []
    assert "not yet" not in text(DIFFERENCES)
    numbers = [int(cells[0]) for cells in table if cells[0].isdigit()]
    assert numbers == list(range(1, len(numbers) + 1)) and len(numbers) >= 41


def test_every_deliberate_difference_in_the_code_is_on_the_page():
    named, differing = set(FILE.findall(text(DIFFERENCES))), []
    for folder, _, names in os.walk(os.path.join(ROOT, "jseg")):
        files = [
            os.path.relpath(os.path.join(folder, name), ROOT).replace(os.sep, "/")
            for name in names
            if name.endswith(".py")
        ]
        differing += [name for name in files if COMMENT.search(text(name))]
    assert len(differing) >= 8 and [name for name in differing if name not in named] == []


def test_the_default_output_is_the_one_on_the_page():
    (row,) = [cells for cells in rows(DIFFERENCES) if cells[0] == "17"]
    assert (
        importlib.import_module("jseg.commands.test").parser().get_default("output_path")
        == "./results"
        and "`./results`" in row[2]
    )


# The READMEs
# --------------------------------------------------------------------------------------------------


def options(page):
    return sorted(set(re.findall(r"--\w+", text(page))))


def addresses(page):
    return sorted(set(re.findall(r"https://[^)\s]+", text(page))))


def depths(page):
    """The depth of every heading, in order."""
    return [len(marks) for marks in re.findall(r"^(#+) ", FENCE.sub("", text(page)), re.M)]


def pictures(page):
    return re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text(page))


@pytest.mark.parametrize("page", TRANSLATED)
@pytest.mark.parametrize("part", [commands, options, depths], ids=lambda part: part.__name__)
def test_a_translation_says_the_same(page, part):
    assert part(page) == part(TRANSLATED[page]) and part(page)


@pytest.mark.parametrize(
    "part",
    [lambda page: fences(page, "python"), addresses, pictures, lambda page: len(rows(page))],
    ids=["python", "addresses", "pictures", "rows"],
)
def test_both_readmes_say_the_same(part):
    assert part(ENGLISH) == part(CHINESE) and part(ENGLISH)


@pytest.mark.parametrize("page", READMES)
def test_the_first_screen(page):
    """Name, image, install, two commands, Python, what has not been shown, in this order."""
    lines = text(page).splitlines()
    assert lines[0].startswith("# jseg") and "](docs/landscape_grid.jpg)" in lines[4]
    order = ["apt install", "\nmake demo", "\nmake test", "```python", "CUDA", "scripts/test.py"]
    places = [text(page).index(part) for part in order]
    assert places == sorted(places)
    assert text(page)[: places[-2]].count("\n") < 80, "the first screen is long"


def test_the_demo_makes_as_many_images_as_the_pages_say():
    count = importlib.import_module("jseg.commands.demo").parser().get_default("count")
    assert count == 6 and "six images" in text(ENGLISH) and "六张图像" in text(CHINESE)


@pytest.mark.parametrize(
    "line", sorted({line for page in PAGES for line in commands(page) if CALL.match(line)})
)
def test_commands_are_understood(line):
    words = shlex.split(CALL.sub("", line))
    if words == ["-m", "jseg", "--version"]:
        return
    name, words = (
        (words[2], words[3:])
        if words[0] == "-m"
        else (os.path.splitext(os.path.basename(words[0]))[0], words[1:])
    )
    assert name in cli.commands() and exists(f"scripts/{name}.py")
    if words != ["--help"]:
        importlib.import_module("jseg.commands." + name).parser().parse_args(words)


def test_options_exist():
    parsers = [importlib.import_module("jseg.commands." + name).parser() for name in cli.commands()]
    known = {
        option
        for parser in parsers
        for action in parser._actions
        for option in action.option_strings
    }
    for page in READMES + (FORMATS, TRAINING, FLOWSEG, INFERENCE):
        assert [
            option for option in re.findall(r"`(--\w+)", text(page)) if option not in known
        ] == []


def test_output_is_what_the_command_prints():
    (line,) = [
        line
        for body in fences(INFERENCE, "text")
        for line in body.splitlines()
        if line.startswith("jseg test: ")
    ]
    source = re.sub(r'"\s+f?"', "", text("jseg/commands/test.py"))
    assert all(part in source and part in line for part in ["settings and timings in"])


def test_the_small_weights_are_for_images_of_the_size_on_the_page():
    from jseg.ldm.presets import AUTOENCODERS, UNETS

    unet, factor = UNETS["landscape"], AUTOENCODERS["landscape"].downsampling
    for page in READMES + (TRAINING,):
        assert f"{unet.width * factor}x{unet.height * factor}" in text(page)


def test_the_readme_s_python_example_runs(tmp_path, monkeypatch):
    """On the files of a demo of two images, with one short stage."""
    from jseg.commands import demo
    from jseg.landscapes import challenge_folder

    monkeypatch.chdir(tmp_path)
    challenge_folder.write_challenge("demo/data", 2, 0, 128, 96)
    stage = dict(demo.STAGES["stages"][0], steps=2)
    with open("demo/stages.json", "w") as file:
        json.dump({"base": "fine", "stages": [stage]}, file)
    (example,) = fences(ENGLISH, "python")
    names = {}
    exec(compile(example, ENGLISH, "exec"), names)
    assert names["image"].shape == (96, 128, 3) and os.path.exists("image.jpg")
    assert names["labels"].shape == (96, 128) and names["labels"].dtype == np.int32
    assert len(example.splitlines()) <= 12


def test_the_python_example_of_inference_runs(tmp_path, monkeypatch):
    """On the tiny networks under the names of the official files, and with shorter stages."""
    from jseg import checkpoint
    from jseg.images import read_image, save_image
    from jseg.ldm import state_dict
    from jseg.ldm.presets import AUTOENCODERS, PIPELINES, UNETS, Pipeline, Stage
    from jseg.parity import stand_in

    short = Pipeline(
        (Stage(3.5, "ddim10", 3), Stage(3.7, "ddim10", 2, True)),
        aligned=False,
        float_handoff=False,
        rounding="truncate",
    )
    monkeypatch.setitem(PIPELINES, "release", short)
    monkeypatch.chdir(tmp_path)
    os.mkdir("checkpoints")
    unet, autoencoder = UNETS["tiny"], AUTOENCODERS["tiny"]
    checkpoint.save(
        "checkpoints/average-176k-266k.pkl", stand_in.fill(state_dict.unet_shapes(unet)), unet
    )
    checkpoint.save(
        "checkpoints/autoencoder.pkl",
        stand_in.fill(state_dict.autoencoder_shapes(autoencoder)),
        autoencoder,
    )
    width, height = unet.width * autoencoder.downsampling, unet.height * autoencoder.downsampling
    random = np.random.default_rng(0)
    save_image("label.png", random.integers(0, 29, (height, width)).astype(np.uint8))
    save_image("reference.jpg", random.integers(0, 256, (height, width, 3)).astype(np.uint8))
    (example,) = fences(INFERENCE, "python")
    exec(compile(example, INFERENCE, "exec"), {})
    assert read_image("image.jpg").shape == (height, width, 3)


def test_every_option_of_test_is_told():
    parser = importlib.import_module("jseg.commands.test").parser()
    known = {action.option_strings[-1] for action in parser._actions} - {"--help"}
    assert sorted(known - set(options(INFERENCE))) == []


# docs/training.md
# --------------------------------------------------------------------------------------------------


def training_options():
    """{command: {option: default}} of both training commands."""
    defaults = {}
    for name in ("train", "train_autoencoder"):
        parser = importlib.import_module("jseg.commands." + name).parser()
        defaults[name] = {
            action.option_strings[0]: action.default
            for action in parser._actions
            if action.dest != "help"
        }
        defaults[name]["--steps"] = parser.get_default("default_steps")
    return defaults


def test_every_option_of_training_is_told():
    on_page = set(re.findall(r"--\w+", text(TRAINING)))
    for name, options in training_options().items():
        assert [option for option in options if option not in on_page] == [], name


def test_the_table_of_training_options_has_the_defaults_of_the_code():
    options = training_options()
    table = [cells for cells in rows(TRAINING) if len(cells) == 4 and cells[0].startswith("`--")]
    assert len(table) > 8
    for cells in table:
        name = cells[0].strip("`")
        assert cells[1:3] == [
            str(options[command][name]) for command in ("train", "train_autoencoder")
        ], name
    steps = format(options["train"]["--steps"], ",")
    assert all(steps in text(page) for page in READMES + (TRAINING,))
    assert f"`--drop` ({options['train']['--drop']})" in text(TRAINING)


def test_the_presets_of_training_are_named():
    from jseg.ldm.presets import AUTOENCODERS, UNETS

    (row,) = [cells for cells in rows(TRAINING) if cells[0] == "`--preset`"]
    assert re.findall(r"`(\w+)`", row[3]) == list(UNETS) == list(AUTOENCODERS)


def test_the_files_of_a_run_have_the_names_on_the_pages():
    from jseg.ldm import cache_files
    from jseg.training import curve, records

    for page in READMES + (TRAINING, FORMATS):
        named = re.findall(r"checkpoint-[\w.]+", text(page))
        assert named and [name for name in named if not records.CHECKPOINT.match(name)] == []
        assert records.LOG in text(page) and records.CURVE in text(page)
    for name in (cache_files.ABOUT, cache_files.LATENTS, cache_files.LABELS, cache_files.KEYS):
        assert [cells for cells in rows(FORMATS) if cells[0] == f"`{name}`"], name
    columns = set(re.findall(r"`(?:critic/|validation/)?(\w+)`", text(TRAINING) + text(FLOWSEG)))
    assert set(curve.UNITS) <= columns, "columns of log.csv"


# docs/flowseg.md
# --------------------------------------------------------------------------------------------------


def test_the_example_of_flowseg_runs(tmp_path, monkeypatch):
    from support.small_flowseg import TINY, random_network, scene

    from jseg.checkpoint import save
    from jseg.images import save_image

    monkeypatch.chdir(tmp_path)
    os.makedirs("runs/flowseg")
    save("runs/flowseg/best.safetensors", random_network().state_dict(), TINY)
    save_image("street.jpg", scene(0, 60, 44)[0])
    (example,) = fences(FLOWSEG, "python")
    names = {}
    exec(compile(example, FLOWSEG, "exec"), names)
    assert names["labels"].shape == (44, 60) and names["labels"].dtype == np.int32


def test_every_option_of_flowseg_s_commands_is_told_with_its_default():
    on_page, table = set(re.findall(r"--\w+", text(FLOWSEG))), {}
    for cells in rows(FLOWSEG):
        if len(cells) == 3:
            table.update(zip(re.findall(r"`(--\w+)`", cells[0]), cells[1].split(", ")))
    for name in ("train_flowseg", "segment"):
        parser = importlib.import_module("jseg.commands." + name).parser()
        options = {
            action.option_strings[0]: action.default
            for action in parser._actions
            if action.dest != "help"
        }
        assert [option for option in options if option not in on_page] == [], name
        for option in set(options) & set(table) - set(
            "--batch_size --overlap --seeds --scales --classes --source --codes".split()
        ):
            default, said = options[option], table[option].strip("`")
            expected = (
                "no"
                if default is False
                else default
                if isinstance(default, str) or default is None
                else f"{default:g}"
            )
            assert default is None or said == expected, option


def test_the_table_of_flowseg_s_presets_is_that_of_the_code():
    from jseg.commands.train_flowseg import RECIPES
    from jseg.flowseg.pixnerd import PixNerd
    from jseg.flowseg.presets import NETWORKS

    (heading,) = [
        line for line in text(FLOWSEG).splitlines() if line.startswith("| what is not given")
    ]
    cells_of = rows(FLOWSEG) + [[cell.strip() for cell in heading.strip("|").split(" | ")]]
    table = {cells[0].strip("`"): cells[1:] for cells in cells_of if len(cells) == 4}
    for place, presets in enumerate((["tiny"], ["small"], ["pixnerd-L/16", "pixnerd-XL/16"])):
        assert re.findall(r"`([^`]+)`", table["what is not given"][place]) == presets
        stand_in = RECIPES.get(presets[0], RECIPES[""])
        sizes = {(NETWORKS[name].width, NETWORKS[name].height) for name in presets}
        assert sizes == {tuple(map(int, table["crops and windows"][place].split("x")))}
        for option, name in (
            ("steps", "default_steps"),
            ("batch_size",) * 2,
            ("learning_rate",) * 2,
            ("ema",) * 2,
            ("save_interval",) * 2,
        ):
            assert float(table["--" + option][place].replace(",", "")) == stand_in[name], (
                option,
                presets,
            )
        for option in ("warmup", "jitter", "shift"):
            assert float(table["--" + option][place]) == stand_in[option], (option, presets)
        assert table["--decay"][place].strip("`") == stand_in["decay"]
        assert list(map(float, table["--scales"][place].split())) == stand_in["scales"]
        counts = [
            sum(
                int(np.prod(value.shape)) for value in PixNerd(NETWORKS[name]).state_dict().values()
            )
            for name in presets
        ]
        assert table["parameters"][place] == ", ".join(format(count, ",") for count in counts)


def test_the_distances_of_codes_are_those_of_the_code():
    from scipy.spatial.distance import pdist

    from jseg.flowseg.encoding import KINDS, class_codes

    (heading,) = [
        line for line in text(FLOWSEG).splitlines() if line.startswith("| `--codes` | where")
    ]
    numbers = [int(cell) for cell in heading.strip("| ").split(" | ")[2:]]
    table = {
        cells[0].strip("`"): cells[2:]
        for cells in rows(FLOWSEG)
        if len(cells) == 8 and cells[0].strip("`") in KINDS
    }
    assert list(table) == list(KINDS)
    for kind, distances in table.items():
        assert distances == [f"{pdist(class_codes(n, kind)).min():.4f}" for n in numbers]


def test_the_layouts_of_flowseg_are_those_of_the_code():
    from jseg.commands import train_flowseg
    from jseg.data.classes import CLASS_SETS
    from jseg.data.datasets import LAYOUTS

    table = {
        cells[0].strip("`"): cells
        for cells in rows(FLOWSEG)
        if len(cells) == 4 and cells[0].strip("`") in LAYOUTS
    }
    assert set(table) == set(LAYOUTS) == set(train_flowseg.LAYOUTS)
    for name, state_dict in LAYOUTS.items():
        if state_dict.classes:
            classes = CLASS_SETS[state_dict.classes]
            assert table[name][3].startswith(f"{min(classes.file_ids)} to {max(classes.file_ids)}")
            assert table[name][3].endswith(f"and {classes.file_ignore[0]}")


# docs/formats.md
# --------------------------------------------------------------------------------------------------


def test_the_file_of_classes_is_accepted(tmp_path):
    from jseg.data.classes import load_classes

    (example,) = [body for body in fences(FORMATS, "text") if "ignore" in body]
    (tmp_path / "classes.txt").write_text(example)
    classes = load_classes(tmp_path / "classes.txt")
    assert classes.names == ("sky", "mountain", "calm water") and classes.ignore == (255,)
    (tmp_path / "classes.json").write_text(
        re.search(r"`(\{\"classes\".*\})`", text(FORMATS)).group(1).replace(", ...", "")
    )
    assert load_classes(tmp_path / "classes.json").names == ("sky",)


def test_the_table_of_classes_is_that_of_the_code():
    from jseg.data.classes import CLASS_SETS

    for name, classes in CLASS_SETS.items():
        (row,) = [cells for cells in rows(FORMATS) if cells[0] == f"`{name}`"]
        assert row[1].startswith(f"{min(classes.file_ids)} to {max(classes.file_ids)}")
        assert row[2] == ", ".join(map(str, classes.file_ignore))


def test_the_stages_file_is_accepted_and_its_fields_are_all_told(tmp_path):
    from jseg.ldm import presets
    from jseg.ldm.pipelines import load_pipeline

    (example,) = [body for body in fences(FORMATS, "json") if "stages" in body]
    (tmp_path / "stages.json").write_text(example)
    assert load_pipeline(tmp_path / "stages.json").float_handoff
    for kind in (presets.Stage, presets.Pipeline):
        assert [
            name for name in kind.__dataclass_fields__ if f"`{name}`" not in text(FORMATS)
        ] == []


def test_the_table_of_presets_is_that_of_the_code():
    from jseg.ldm.presets import PIPELINES

    release, fine = PIPELINES["release"], PIPELINES["fine"]
    for number, stages in enumerate(zip(release.stages, fine.stages)):
        cells = []
        for stage in stages:
            kept = f"`{stage.respacing}`" if stage.respacing else "all steps"
            fast = (
                f", `{stage.sampler}`, {stage.steps} `{stage.spacing}` steps" if stage.steps else ""
            )
            transfer = ", colour transfer" if stage.color_transfer else ""
            cells.append(
                f"guidance {stage.guidance}, {kept}, start index "
                f"{stage.start_index}{transfer}{fast}"
            )
        assert [f"stage {number}"] + cells in rows(FORMATS)
    for name in ("aligned", "float_handoff", "rounding"):
        assert [f"`{name}`"] + [
            str(getattr(preset, name)).lower() for preset in (release, fine)
        ] in rows(FORMATS)
    quality = [
        f"quality {preset.jpeg_quality}, {preset.jpeg_subsampling}" for preset in (release, fine)
    ]
    assert ["JPEG of the results"] + quality in rows(FORMATS)
