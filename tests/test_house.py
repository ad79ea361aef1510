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
SHARED_BY_COMMANDS = {"jseg.commands", "jseg.commands.cli", "jseg.counting"} | {
    f"jseg.commands.{name}" for name in ("training", "training_options")
}


def files(*folders, suffix=".py"):
    paths = []
    for folder in folders:
        for parent, names, members in os.walk(os.path.join(ROOT, folder)):
            names[:] = [name for name in names if name != "__pycache__"]
            paths += [
                os.path.join(parent, member)
                for member in sorted(members)
                if member.endswith(suffix)
            ]
    return paths


def read(*names):
    with open(os.path.join(ROOT, *names), encoding="utf-8") as file:
        return file.read()


def module(path):
    name = os.path.relpath(path, ROOT)[:-3].replace(os.sep, ".")
    return name[: -len(".__init__")] if name.endswith(".__init__") else name


def tree(path):
    with open(path, encoding="utf-8") as file:
        return ast.parse(file.read(), path)


PROGRAMS = ("scripts", "benchmarks", "examples")  # on the top floor, outside of the package
SOURCES = ("jseg", "tests") + PROGRAMS

LINE_LENGTH, FILE_LENGTH, SCRIPT_LENGTH, EXAMPLE_LENGTH = 100, 330, 12, 65
FUNCTION_LENGTH = 50  # without its docstring

MODULES = {module(path): path for path in files("jseg")}


def imports(path, lazily=True):
    """Every module named by an import statement; with lazily=False, only by those that run when the
    module is imported.
    """
    names, pending = set(), [tree(path)]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            names.update(
                f"{node.module}.{alias.name}"
                if f"{node.module}.{alias.name}" in MODULES
                else node.module
                for alias in node.names
            )
        elif lazily or not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            pending += ast.iter_child_nodes(node)
    return names


def roots(names):
    return {name.partition(".")[0] for name in names}


IMPORTS = {
    name: {target for target in imports(path) if target in MODULES} - {"jseg", name}
    for name, path in MODULES.items()
}


def architecture():
    return read("docs", "architecture.md")


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
    assert sorted(rooms - set(FLOORS)) == [], "without a floor in docs/architecture.md"
    assert sorted(set(FLOORS) - rooms - set(PROGRAMS)) == [], (
        "on a floor of docs/architecture.md, but not there"
    )
    assert len(set(FLOORS.values())) == 9


def upward(imports_of):
    """The imports, of {module: modules}, that do not go down to a lower floor or stay in a room."""
    return [
        f"{name} ({floor(name)}) imports {target} ({floor(target)})"
        for name in imports_of
        for target in imports_of[name]
        if room(name)
        and room(target)
        and room(name) != room(target)
        and floor(name) <= floor(target)
    ]


def test_imports_go_down_the_floors():
    assert upward(IMPORTS) == []
    assert upward({"jseg.images": {"jseg.files"}, "jseg.ldm.unet": {"jseg.ldm.blocks"}}) == []
    assert len(upward({"jseg.files": {"jseg.images"}})) == 1, "the rule can fail"


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


def test_the_reading_lists_are_near_the_truth():
    rows = re.findall(r"^\| `(jseg/[\w/]+\.py)` \| (\d+) \|", architecture(), re.M)
    assert len(rows) > 40
    for name, stated in rows:
        lines = read(name).count("\n")
        assert abs(lines - int(stated)) <= max(20, lines // 5), (
            f"{name} has {lines} lines: run python benchmarks/reading.py --update"
        )


def test_the_tests_have_a_folder_for_every_room():
    folders = {path.parent.name for path in (ROOT / "tests").glob("*/test_*.py")}
    assert folders <= set(FLOORS), "a folder of tests for no room"
    assert not [
        path
        for path in (ROOT / "tests").glob("*.py")
        if not path.name.startswith("test_") and path.name != "conftest.py"
    ]


def circle(imports_of):
    """A chain of modules, of {module: modules}, that returns to where it began; or None."""
    done = set()

    def visit(chain):
        for target in sorted(imports_of.get(chain[-1], ())):
            if target in chain:
                return chain[chain.index(target) :] + [target]
            longer = None if target in done else visit(chain + [target])
            if longer:
                return longer
        done.add(chain[-1])

    return next(filter(None, (visit([name]) for name in imports_of)), None)


def test_there_are_no_circles():
    assert circle(IMPORTS) is None
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) is None
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"], "the rule can fail"


def test_only_the_runtime_imports_jittor():
    jittor = {"jittor", "jittor_utils"}
    assert {name for name, path in MODULES.items() if roots(imports(path)) & jittor} == {
        "jseg.runtime"
    }
    assert not [path for path in files(*PROGRAMS) if roots(imports(path)) & jittor]


def test_nothing_imports_torch():
    others = {"torch", "cupy", "mpi4py", "omegaconf", "albumentations"}
    assert not [
        path
        for path in files("jseg", "scripts", "tests", "examples")
        if roots(imports(path)) & others
    ]


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
        "machine files noise configs progress counting contact_sheet text_file image_files "
        "formats images checkpoint outputs data landscapes metrics"
    ).split()
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
    files(*SOURCES),
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
    names = [os.path.splitext(os.path.basename(path))[0].strip("_") for path in files(*SOURCES)]
    assert not bad.intersection(names)


def long_lines(paths):
    return lines_where(paths, lambda line: len(line) > LINE_LENGTH)


def long_files(paths, limit):
    counts = {}
    for path in paths:
        with open(path, encoding="utf-8") as file:
            counts[os.path.relpath(path, ROOT)] = sum(1 for _ in file)
    return {name: count for name, count in counts.items() if count > limit}


def lines_where(paths, wrong):
    """The lines of files for which wrong(line) is true, as "file:number: line"."""
    lines = []
    for path in paths:
        with open(path, encoding="utf-8") as file:
            lines += [
                f"{os.path.relpath(path, ROOT)}:{n}: {line.strip()}"
                for n, line in enumerate(file, 1)
                if wrong(line.rstrip("\n"))
            ]
    return lines


def test_lines_are_short():
    others = files("scripts", suffix=".sh") + files("jseg/nn", suffix=".h")
    others += files("jseg/parity", suffix=".h") + files("jseg/parity", suffix=".cc")
    assert long_lines(files(*SOURCES) + others) == []
    assert f"line-length = {LINE_LENGTH}\n" in read("ruff.toml")


def test_files_are_short():
    assert long_files(files("jseg"), FILE_LENGTH) == {}
    assert long_files(files("scripts"), SCRIPT_LENGTH) == {}
    assert long_files(files("examples"), EXAMPLE_LENGTH) == {}
    assert long_files([os.path.join(ROOT, "README.md")], 200) == {}
    assert long_files([os.path.join(ROOT, "README.zh-CN.md")], 200) == {}


def long_functions(paths, limit):
    """{"file: function": lines} of those above the limit. Their docstrings do not count, nor do
    functions that add options to a parser.
    """
    functions = [
        (path, node)
        for path in paths
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef) and node.name not in ("parser", "add_options")
    ]
    counts = {}
    for path, node in functions:
        first = node.body[0]
        said = first.end_lineno - first.lineno + 1 if ast.get_docstring(node) else 0
        name = f"{os.path.relpath(path, ROOT)}: {node.name}"
        counts[name] = node.end_lineno - node.lineno + 1 - said
    return {name: count for name, count in counts.items() if count > limit}


def test_functions_are_short():
    assert long_functions(files("jseg"), FUNCTION_LENGTH) == {}


# Split, so that this file does not hold what it looks for.
FORBIDDEN = {
    "the path of a machine": "/(?:" + "|".join(("work", "root", "tmp")) + r")/|/home/\w",
    "unfinished business": r"\b(?:TO" + r"DO|FIX" + r"ME|XX" + r"X)\b",
    "a host of a package registry": r"\b(?:py"
    + r"pi|python"
    + r"hosted|ana"
    + r"conda)\.(?:org|com)\b",
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_nothing_names(what):
    folders = SOURCES + (".ci", ".github")
    texts = files(*folders) + files("docs", suffix=".md") + files(".github", suffix=".yml")
    texts += files("scripts", suffix=".sh") + files(".ci", suffix="run")
    texts += [
        os.path.join(ROOT, name)
        for name in os.listdir(ROOT)
        if name.endswith((".md", ".py", ".cff", ".toml", ".yaml", ".ini")) or name == "Makefile"
    ]
    assert lines_where(texts, re.compile(FORBIDDEN[what]).search) == []


def test_the_rules_of_the_page_can_fail(tmp_path):
    path = tmp_path / "page.py"
    path.write_text("x" * (LINE_LENGTH + 1) + "\n" + "\n".join(["# TO" + "DO", "", "/ro" + "ot/x"]))
    assert len(long_lines([path])) == 1 and len(long_files([path], 3)) == 1
    assert long_files([path], 4) == {}
    (tmp_path / "long.py").write_text("def f():\n" + '    """Said."""\n' + "    x = 1\n" * 3)
    assert list(long_functions([tmp_path / "long.py"], 3).values()) == [4]
    assert long_functions([tmp_path / "long.py"], 4) == {}
    for what, number in (("the path of a machine", 4), ("unfinished business", 2)):
        (line,) = lines_where([path], re.compile(FORBIDDEN[what]).search)
        assert f"page.py:{number}:" in line


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
    changes = re.findall(r"^## (\S+) \((.+)\)$", read("CHANGELOG.md"), re.M)
    assert changes[0][0] == __version__
    for version, when in changes[1:]:
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", when), f"{version} has no date"
    assert re.search(r"^version: (\S+)$", read("CITATION.cff"), re.M).group(1) == __version__
    assert 'read("jseg/__init__.py")' in read("setup.py") and ">=3.8,<3.13" in read("setup.py")
    assert sys.version_info[:2] >= (3, 8)


def test_ci_runs_the_commands_of_the_makefile():
    targets = set(re.findall(r"^([\w-]+):", read("Makefile"), re.M))
    assert {"test", "demo", "lint"} <= targets
    assert os.access(os.path.join(ROOT, ".ci", "run"), os.X_OK)
    for name in (os.path.join(".ci", "run"), os.path.join(".github", "workflows", "test.yml")):
        called = set(re.findall(r"\bmake ([\w-]+)", read(name)))
        assert called == {"lint", "test"} <= targets, name
