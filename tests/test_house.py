"""The house as README.md draws it: levels without circles, one door to Jittor, names and habits that hold everywhere.

A module imports from lower levels, or from its own where that makes no circle.
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


def files(*folders, suffix=".py"):
    found = []
    for folder in folders:
        for parent, names, members in os.walk(os.path.join(ROOT, folder)):
            names[:] = [name for name in names if name != "__pycache__"]
            found += [os.path.join(parent, member) for member in sorted(members) if member.endswith(suffix)]
    return found


def module(path):
    name = os.path.relpath(path, ROOT)[:-3].replace(os.sep, ".")
    return name[:-len(".__init__")] if name.endswith(".__init__") else name


def tree(path):
    with open(path, encoding="utf-8") as file:
        return ast.parse(file.read(), path)


MODULES = {module(path): path for path in files("jseg")}


def imports(path, lazily=True):
    """Every module named by an import statement; with lazily=False, only by those that run when the module is imported."""
    found, pending = set(), [tree(path)]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            found.update(f"{node.module}.{alias.name}" if f"{node.module}.{alias.name}" in MODULES else node.module for alias in node.names)
        elif lazily or not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            pending += ast.iter_child_nodes(node)
    return found


def roots(names):
    return {name.partition(".")[0] for name in names}


IMPORTS = {name: {target for target in imports(path) if target in MODULES} - {"jseg", name} for name, path in MODULES.items()}


def drawn(readme):
    """The tree in a README: {module or folder: level, or None where the tree gives none}."""
    with open(os.path.join(ROOT, readme), encoding="utf-8") as file:
        block = re.search(r"^```\w*\n(README\.md .*?)^```", file.read(), re.M | re.S).group(1)
    found, parents = {}, []
    for line in block.splitlines():
        indent, name, place = re.match(r"( *)(\S+)\s*(?:L(\d))?", line).groups()
        parents = parents[:len(indent) // 2] + [name.rstrip("/")]
        if parents[0] == "jseg":
            found[re.sub(r"(\.__init__)?\.py$", "", ".".join(parents))] = int(place) if place else None
    return found


MAP = drawn("README.md")


def level(name):
    """A module's level: its own line's or its folder's; None if the tree has neither. A folder's __init__ and cli.py are 0."""
    if name == "jseg.commands.cli" or os.path.basename(MODULES[name]) == "__init__.py":
        return 0
    own = MAP.get(name)
    return MAP.get(name.rpartition(".")[0]) if own is None else own


def test_the_readme_s_tree_is_the_house():
    assert [name for name in MODULES if level(name) is None] == [], "not in README.md's tree, or without a level"
    there = set(MODULES) | {name.rpartition(".")[0] for name in MODULES}
    assert [name for name in MAP if name not in there] == [], "drawn, but not there"
    assert drawn("README.zh-CN.md") == MAP


def test_imports_go_down_the_levels():
    wrong = [f"{name} ({level(name)}) imports {target} ({level(target)})" for name in MODULES for target in IMPORTS[name]
             if level(name) is not None and level(target) is not None and level(name) < level(target)]
    assert wrong == []


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
    assert {name for name, path in MODULES.items() if roots(imports(path)) & jittor} == {"jseg.runtime"}
    assert not [path for path in files("scripts", "benchmarks") if roots(imports(path)) & jittor]


def test_nothing_imports_torch():
    others = {"torch", "cupy", "mpi4py", "omegaconf", "albumentations"}
    assert not [path for path in files("jseg", "scripts", "tests") if roots(imports(path)) & others]


def test_the_branches_never_meet():
    for one, other in (("jseg.ldm", "jseg.flowseg"), ("jseg.flowseg", "jseg.ldm")):
        assert not [name for name in MODULES if name.startswith(one) for target in IMPORTS[name] if target.startswith(other)]


def test_level_0_never_reaches_jittor():
    assert not [name for name in MODULES if level(name) == 0 and "jseg.runtime" in _reach(name)]


def _reach(name, seen=None):
    seen = set() if seen is None else seen
    for target in IMPORTS[name] - seen:
        seen.add(target)
        _reach(target, seen)
    return seen


def test_packages_re_export_nothing():
    assert not [name for name, path in MODULES.items() if path.endswith("__init__.py") and IMPORTS[name]]


@pytest.mark.parametrize("name", sorted(name for name in MODULES if level(name) == 6))
def test_commands_import_lazily_and_keep_the_form(name):
    early = imports(MODULES[name], lazily=False)
    assert not roots(early) & HEAVY
    assert {target for target in early if target.startswith("jseg.")} <= {"jseg.commands", "jseg.commands.cli"}
    functions = {node.name for node in tree(MODULES[name]).body if isinstance(node, ast.FunctionDef)}
    assert {"parser", "main"} <= functions
    assert "example" in (ast.get_docstring(tree(MODULES[name])) or "").lower()


@pytest.mark.parametrize("path", files("jseg", "scripts", "tests", "benchmarks"), ids=lambda path: os.path.relpath(path, ROOT))
def test_every_file_is_python_3_8_and_has_a_docstring(path):
    with open(path, encoding="utf-8") as file:
        text = file.read()
    parsed = ast.parse(text, path, feature_version=(3, 8))
    assert not text.strip() or ast.get_docstring(parsed) or os.sep + "tests" + os.sep in path, "no module docstring"
    attributes = {node.attr for node in ast.walk(parsed) if isinstance(node, ast.Attribute)}
    assert not attributes & {"removeprefix", "removesuffix", "bit_count"}
    assert not re.search(r"\bzip\([^()]*strict=|functools\.cache\b|\bfrom functools import cache\b", text)


def test_no_room_is_named_after_its_pattern():
    bad = {"util", "utils", "helper", "helpers", "common", "base", "core", "misc"}
    names = [os.path.splitext(os.path.basename(path))[0].strip("_") for path in files("jseg", "scripts", "tests", "benchmarks")]
    assert not bad.intersection(names)


def test_lines_are_short():
    long = []
    for path in files("jseg", "scripts", "tests", "benchmarks"):
        with open(path, encoding="utf-8") as file:
            long += [f"{os.path.relpath(path, ROOT)}:{n}" for n, line in enumerate(file, 1) if len(line.rstrip("\n")) > 140]
    assert long == []


def test_files_are_short():
    def lines(path):
        with open(path, encoding="utf-8") as file:
            return sum(1 for _ in file)

    assert not [path for path in files("jseg") if lines(path) > 300]
    assert not [path for path in files("scripts") if lines(path) > 12]


def test_no_machine_s_paths_and_no_unfinished_business():
    paths = re.compile("/(?:" + "|".join(("work", "root", "tmp")) + r")/|/home/\w")
    notes = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|XX" + r"X)\b")
    texts = files("jseg", "scripts", "tests", "benchmarks", ".ci") + files("docs", suffix=".md")
    texts += [os.path.join(ROOT, name) for name in os.listdir(ROOT) if name.endswith((".md", ".py")) or name == "Makefile"]
    found = []
    for path in texts:
        with open(path, encoding="utf-8") as file:
            found += [f"{path}:{n}: {line.strip()}" for n, line in enumerate(file, 1) if paths.search(line) or notes.search(line)]
    assert found == []


def test_warnings_of_our_modules_are_errors_in_the_suite():
    for module_name, raised in (("jseg.images", True), ("jseg", True), ("jsegment", False), ("numpy", False)):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="jsegment|numpy")
            try:
                warnings.warn_explicit("sample", UserWarning, "file.py", 1, module=module_name, registry={})
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
