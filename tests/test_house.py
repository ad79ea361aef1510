"""The house as docs/architecture.md draws it: floors without circles, one door to Jittor, names and
habits that hold everywhere.

A room imports rooms on lower floors; inside of a room modules import each other where that makes no
circle.
"""

import ast
import os
import re
import sys
import warnings

import pytest
from support.places import ROOT

from jseg import __version__

HEAVY = {"jittor", "jittor_utils", "numpy", "cv2", "scipy", "PIL", "tqdm", "matplotlib"}
SHARED_BY_COMMANDS = {"jseg.commands", "jseg.commands.cli"} | {
    f"jseg.commands.{name}" for name in ("training", "training_options")
}


def files(*folders, suffix=".py"):
    found = []
    for folder in folders:
        for parent, names, members in os.walk(os.path.join(ROOT, folder)):
            names[:] = [name for name in names if name != "__pycache__"]
            found += [
                os.path.join(parent, member)
                for member in sorted(members)
                if member.endswith(suffix)
            ]
    return found


def module(path):
    name = os.path.relpath(path, ROOT)[:-3].replace(os.sep, ".")
    return name[: -len(".__init__")] if name.endswith(".__init__") else name


def tree(path):
    with open(path, encoding="utf-8") as file:
        return ast.parse(file.read(), path)


MODULES = {module(path): path for path in files("jseg")}


def imports(path, lazily=True):
    """Every module named by an import statement; with lazily=False, only by those that run when the
    module is imported.
    """
    found, pending = set(), [tree(path)]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            found.update(
                f"{node.module}.{alias.name}"
                if f"{node.module}.{alias.name}" in MODULES
                else node.module
                for alias in node.names
            )
        elif lazily or not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            pending += ast.iter_child_nodes(node)
    return found


def roots(names):
    return {name.partition(".")[0] for name in names}


IMPORTS = {
    name: {target for target in imports(path) if target in MODULES} - {"jseg", name}
    for name, path in MODULES.items()
}


def architecture():
    with open(os.path.join(ROOT, "docs", "architecture.md"), encoding="utf-8") as file:
        return file.read()


def floors():
    """{room: floor} of the table in docs/architecture.md; a room is a folder of jseg, or a module
    in its root.
    """
    rows = re.findall(r"^\| (\d) \| (.*) \|$", architecture(), re.M)
    return {room: int(number) for number, rooms in rows for room in re.findall(r"`(\w+)`", rooms)}


def drawn():
    """The modules and folders of the tree in docs/architecture.md, as they are imported."""
    block = re.search(r"^```text\n(jseg/\n.*?)^```", architecture(), re.M | re.S).group(1)
    names, parents = [], []
    for line in block.splitlines():
        indent, name = re.match(r"( *)(\S+)", line).groups()
        parents = parents[: len(indent) // 2] + [name.rstrip("/")]
        names.append(re.sub(r"\.py$", "", ".".join(parents)))
    return names


FLOORS = floors()


def room(name):
    """The room of a module: the first part of its name below jseg; "" for the package's own two
    files.
    """
    return "" if name in ("jseg", "jseg.__main__") else name.split(".")[1]


def floor(name):
    return FLOORS.get(room(name))


def test_every_room_has_a_floor_and_every_floor_is_there():
    rooms = {room(name) for name in MODULES} - {""}
    outside = {"scripts", "benchmarks", "examples"}
    assert sorted(rooms - set(FLOORS)) == [], "without a floor in docs/architecture.md"
    assert sorted(set(FLOORS) - rooms - outside) == [], (
        "on a floor of docs/architecture.md, but not there"
    )
    assert len(set(FLOORS.values())) == 9


def test_imports_go_down_the_floors():
    wrong = [
        f"{name} ({floor(name)}) imports {target} ({floor(target)})"
        for name in MODULES
        for target in IMPORTS[name]
        if room(name)
        and room(target)
        and room(name) != room(target)
        and floor(name) <= floor(target)
    ]
    assert wrong == []


def test_the_tree_is_the_house():
    tree = drawn()
    there = set(MODULES) | {name.rpartition(".")[0] for name in MODULES} | {"jseg.weights"}
    assert [name for name in tree if name not in there] == [], "drawn, but not there"
    assert len(tree) == len(set(tree))

    # A folder is drawn with all of its modules, or with none.
    for name in sorted(set(MODULES) - {"jseg"}):
        folder = name.rpartition(".")[0]
        beside = [other for other in tree if other.rpartition(".")[0] == folder]
        assert name in tree or (folder in tree and not beside), (
            f"{name} is not in the tree of docs/architecture.md"
        )


def test_the_tests_have_a_folder_for_every_room():
    folders = {path.parent.name for path in (ROOT / "tests").glob("*/test_*.py")}
    assert folders <= set(FLOORS), "a folder of tests for no room"
    assert not [
        path
        for path in (ROOT / "tests").glob("*.py")
        if not path.name.startswith("test_") and path.name != "conftest.py"
    ]


def test_there_are_no_circles():
    done, path = set(), []

    def visit(name):
        assert name not in path, " -> ".join(path + [name])
        if name not in done:
            path.append(name)
            for target in sorted(IMPORTS[name]):
                visit(target)
            done.add(path.pop())

    for name in MODULES:
        visit(name)


def test_only_the_runtime_imports_jittor():
    jittor = {"jittor", "jittor_utils"}
    assert {name for name, path in MODULES.items() if roots(imports(path)) & jittor} == {
        "jseg.runtime"
    }
    assert not [path for path in files("scripts", "benchmarks") if roots(imports(path)) & jittor]


def test_nothing_imports_torch():
    others = {"torch", "cupy", "mpi4py", "omegaconf", "albumentations"}
    assert not [path for path in files("jseg", "scripts", "tests") if roots(imports(path)) & others]


def test_the_branches_never_meet():
    for one, other in (("jseg.ldm", "jseg.flowseg"), ("jseg.flowseg", "jseg.ldm")):
        assert not [
            name
            for name in MODULES
            if name.startswith(one)
            for target in IMPORTS[name]
            if target.startswith(other)
        ]


def test_what_must_not_need_jittor_never_reaches_it():
    free = (
        "machine",
        "files",
        "noise",
        "configs",
        "progress",
        "contact_sheet",
        "text_file",
        "image_files",
        "formats",
        "images",
        "checkpoint",
        "outputs",
        "data",
        "landscapes",
        "metrics",
    )
    assert not [name for name in MODULES if room(name) in free and "jseg.runtime" in _reach(name)]


def _reach(name, seen=None):
    seen = set() if seen is None else seen
    for target in IMPORTS[name] - seen:
        seen.add(target)
        _reach(target, seen)
    return seen


def test_packages_re_export_nothing():
    assert not [
        name for name, path in MODULES.items() if path.endswith("__init__.py") and IMPORTS[name]
    ]


@pytest.mark.parametrize(
    "name",
    sorted(name for name in MODULES if room(name) == "commands" and name not in SHARED_BY_COMMANDS),
)
def test_commands_import_lazily_and_keep_the_form(name):
    early = imports(MODULES[name], lazily=False)
    assert not roots(early) & HEAVY
    assert {target for target in early if target.startswith("jseg.")} <= SHARED_BY_COMMANDS
    functions = {
        node.name for node in tree(MODULES[name]).body if isinstance(node, ast.FunctionDef)
    }
    assert {"parser", "main"} <= functions
    assert "example" in (ast.get_docstring(tree(MODULES[name])) or "").lower()


@pytest.mark.parametrize(
    "path",
    files("jseg", "scripts", "tests", "benchmarks"),
    ids=lambda path: os.path.relpath(path, ROOT),
)
def test_every_file_is_python_3_8_and_has_a_docstring(path):
    with open(path, encoding="utf-8") as file:
        text = file.read()
    parsed = ast.parse(text, path, feature_version=(3, 8))
    assert not text.strip() or ast.get_docstring(parsed) or os.sep + "tests" + os.sep in path, (
        "no module docstring"
    )
    attributes = {node.attr for node in ast.walk(parsed) if isinstance(node, ast.Attribute)}
    assert not attributes & {"removeprefix", "removesuffix", "bit_count"}
    assert not re.search(
        r"\bzip\([^()]*strict=|functools\.cache\b|\bfrom functools import cache\b", text
    )


def test_no_room_is_named_after_its_pattern():
    bad = {"util", "utils", "helper", "helpers", "common", "base", "core", "misc"}
    names = [
        os.path.splitext(os.path.basename(path))[0].strip("_")
        for path in files("jseg", "scripts", "tests", "benchmarks")
    ]
    assert not bad.intersection(names)


def test_lines_are_short():
    long = []
    for path in files("jseg", "scripts", "tests", "benchmarks"):
        with open(path, encoding="utf-8") as file:
            long += [
                f"{os.path.relpath(path, ROOT)}:{n}"
                for n, line in enumerate(file, 1)
                if len(line.rstrip("\n")) > 140
            ]
    assert long == []


def test_files_are_short():
    def lines(path):
        with open(path, encoding="utf-8") as file:
            return sum(1 for _ in file)

    assert not [path for path in files("jseg") if lines(path) > 400]
    assert not [path for path in files("scripts") if lines(path) > 12]


def test_no_machine_s_paths_and_no_unfinished_business():
    paths = re.compile("/(?:" + "|".join(("work", "root", "tmp")) + r")/|/home/\w")
    notes = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|XX" + r"X)\b")
    texts = files("jseg", "scripts", "tests", "benchmarks", ".ci") + files("docs", suffix=".md")
    texts += [
        os.path.join(ROOT, name)
        for name in os.listdir(ROOT)
        if name.endswith((".md", ".py")) or name == "Makefile"
    ]
    found = []
    for path in texts:
        with open(path, encoding="utf-8") as file:
            found += [
                f"{path}:{n}: {line.strip()}"
                for n, line in enumerate(file, 1)
                if paths.search(line) or notes.search(line)
            ]
    assert found == []


def test_warnings_of_our_modules_are_errors_in_the_suite():
    for module_name, raised in (
        ("jseg.images", True),
        ("jseg", True),
        ("jsegment", False),
        ("numpy", False),
    ):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="jsegment|numpy")
            try:
                warnings.warn_explicit(
                    "sample", UserWarning, "file.py", 1, module=module_name, registry={}
                )
                assert not raised, module_name
            except UserWarning:
                assert raised, module_name


def test_the_versions_agree():
    with open(os.path.join(ROOT, "CHANGELOG.md"), encoding="utf-8") as file:
        assert re.search(r"^## (\S+)", file.read(), re.M).group(1) == __version__
    with open(os.path.join(ROOT, "setup.py"), encoding="utf-8") as file:
        text = file.read()
    assert 'read("jseg/__init__.py")' in text and ">=3.8,<3.13" in text
    assert sys.version_info[:2] >= (3, 8)


def test_the_makefile_has_the_two_commands_and_ci_calls_one():
    with open(os.path.join(ROOT, "Makefile"), encoding="utf-8") as file:
        text = file.read()
    assert re.search(r"^test:", text, re.M) and re.search(r"^demo:", text, re.M)
    ci = os.path.join(ROOT, ".ci", "run")
    assert os.access(ci, os.X_OK)
    with open(ci) as file:
        assert "make test" in file.read()
