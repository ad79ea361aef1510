"""A text of classes that is JSON, Python's literals or YAML's `names:`; nothing of it is run."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Dict, List, Optional, Tuple

LISTS = ("classes", "categories", "labels", "names", "items", "id2label", "label2id")
KEY = re.compile(rf"(?:\w+_)?(?:{'|'.join(LISTS)})\s*:\s*(?:[\[({{].*)?", re.I)
STATEMENTS = (
    ast.Assign,
    ast.Import,
    ast.ImportFrom,
    ast.FunctionDef,
    ast.ClassDef,
    ast.If,
    ast.Expr,
)


def parsed(path: Path, text: str) -> object:
    """The value of a JSON text; ValueError in one line for any other, and for a key given twice."""

    def once(pairs: List[Tuple[str, object]]) -> dict:
        keys = [key for key, _ in pairs]
        twice = [key for key in keys if keys.count(key) > 1]
        if twice:
            raise ValueError(f"{json.dumps(twice[0])} is given twice in one object")
        return dict(pairs)

    try:
        return json.loads(text, object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from None


def literal(path: Path, text: str) -> Optional[object]:
    """What a text holds that is JSON, JSON a line, Python's literals or YAML's names; else None.

    Nothing of it is run: assignments, calls of dict and literals are read as Python's grammar has
    them.
    """
    start = text.lstrip()[:1]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if start in ("[", "{"):
        try:
            return parsed(path, text)
        except ValueError as error:
            if "given twice" in str(error):
                raise
        if len(lines) > 1 and all(line.startswith("{") and line.endswith("}") for line in lines):
            try:
                return [parsed(path, line) for line in lines]
            except ValueError:
                pass

    # Python assigns its lists; what is left may be YAML.
    if start in ("[", "{", "(") or re.search(r"^\s*[A-Za-z_]\w*\s*=\s*([\[({]|dict\()", text, re.M):
        return _python(text)
    return _yaml(path, text)


def _python(text: str) -> Optional[object]:
    """The literal, or {name: literal} of what a Python text assigns; None where it is neither."""
    try:
        body = ast.parse(text.strip()).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    if len(body) == 1 and isinstance(body[0], ast.Expr):
        value = _whole(_value(body[0].value, {}))
        return value if isinstance(value, (list, dict)) else None

    # What may change a list after its assignment is not followed.
    names = [
        ast.dump(target) for node in body if isinstance(node, ast.Assign) for target in node.targets
    ]
    texts = [node for node in body if isinstance(node, ast.Expr)]
    changed = any(not isinstance(node.value, ast.Constant) for node in texts)
    if (
        changed
        or len(set(names)) < len(names)
        or not all(isinstance(node, STATEMENTS) for node in body)
    ):
        return None

    # `Label = namedtuple("Label", ["name", "id"])` says what Label("road", 7) is.
    assigned = {
        node.targets[0].id: node.value
        for node in body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    records: Dict[str, List[str]] = {}
    for name, node in assigned.items():
        if isinstance(node, ast.Call) and _called(node) == "namedtuple" and len(node.args) == 2:
            given = _value(node.args[1], {})
            words = given.replace(",", " ").split() if isinstance(given, str) else given
            records[name] = words if isinstance(words, list) else []
    values = {
        name: _whole(_value(node, records))
        for name, node in assigned.items()
        if name not in records
    }
    return values if any(isinstance(value, (list, dict)) for value in values.values()) else None


def _whole(value: object) -> object:
    """The value, or "..." where a part of it is none that is known."""
    return "..." if '"..."' in json.dumps(value) else value


def _called(node: ast.Call) -> str:
    return getattr(node.func, "id", getattr(node.func, "attr", ""))


def _value(node: ast.AST, records: Dict[str, List[str]]) -> object:
    """What a node of literals, dict, list, np.array and records holds; "..." for any other."""
    if isinstance(node, ast.Call):
        name = _called(node)
        if name in records and not node.keywords:
            return dict(zip(records[name], [_value(item, records) for item in node.args]))
        if name == "dict" or name in records:
            return {str(word.arg): _value(word.value, records) for word in node.keywords}
        known = name in ("list", "tuple", "array", "asarray") and node.args
        return _value(node.args[0], records) if known else "..."

    # Lists and objects of other values, then plain ones.
    if isinstance(node, (ast.List, ast.Tuple)):
        return [_value(item, records) for item in node.elts]
    if isinstance(node, ast.Dict):
        keys = [None if key is None else _value(key, records) for key in node.keys]
        return {str(key): _value(value, records) for key, value in zip(keys, node.values)}
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return "..."
    return value if value is None or isinstance(value, (str, int, float)) else "..."


def _yaml(path: Path, text: str) -> Optional[dict]:
    """{key: names} of a YAML text with `names:` and the like above a list or mapping; else None."""
    lines = [re.sub(r"(^|\s)#\s.*$", "", line).rstrip() for line in text.splitlines()]
    lines = [line for line in lines if line.strip() and line.strip() != "---"]
    heads = [number for number, line in enumerate(lines) if KEY.fullmatch(line)]
    if not heads:
        return None

    # Blocks: a key at the margin, and what is indented below it or begins with a dash.
    blocks: Dict[str, object] = {}
    for number, line in enumerate(lines):
        if line[0].isspace() or line.startswith("-"):
            continue
        key, _, value = line.partition(":")
        below = []
        for other in lines[number + 1 :]:
            if not (other[0].isspace() or other.startswith("-") or other[0] in "]})"):
                break
            below.append(other.strip())
        blocks[key.strip()] = _yaml_value(path, line, value.strip(), below)
    return blocks


def _yaml_value(path: Path, line: str, value: str, below: List[str]) -> object:
    if value[:1] in ("[", "{", "("):
        inner = " ".join([value] + below)
        read = re.fullmatch(r"\[(.*?),?\s*\]", inner)
        quoted = _python(inner)
        if quoted is None and read and not re.search(r"[\[\]{}]", read[1]):
            return [word.strip().strip("\"'") for word in read[1].split(",")]
        if quoted is None:
            raise ValueError(f"{path}: {line[:60]!r} is not understood; expected a list of names")
        return quoted
    if value or not below:
        return value

    # Lines with a dash are a list, of objects where others are between them; the rest is a mapping.
    if all(item.startswith("-") for item in below):
        items = [item[1:].strip() for item in below]
        return [_scalar(item) for item in items]
    if below[0].startswith("-"):
        return _yaml_objects(path, line, below)
    pairs = [re.fullmatch(r"[\"']?([^\"':]+)[\"']?\s*:\s+(.+)", item) for item in below]
    if not all(pairs):
        bad = next(item for item, pair in zip(below, pairs) if not pair)
        raise ValueError(
            f"{path}: {bad[:60]!r} below {line!r} is not understood; expected '- name' or '0: name'"
        )
    return {pair[1].strip(): _scalar(pair[2].strip()) for pair in pairs}


def _yaml_objects(path: Path, line: str, below: List[str]) -> List[dict]:
    """The objects of `- name: sky` with other keys in the lines below it."""
    objects: List[dict] = []
    for item in below:
        pair = re.fullmatch(r"(-\s+)?[\"']?([^\"':]+)[\"']?\s*:\s+(.+)", item)
        if not pair:
            raise ValueError(
                f"{path}: {item[:60]!r} below {line!r} is not understood; expected '- name'"
            )
        objects += [{}] if pair[1] else []
        objects[-1][pair[2].strip()] = _scalar(pair[3].strip())
    return objects


def _scalar(text: str) -> object:
    if text[:1] in ("[", "("):
        return _python(text) or text
    return int(text) if re.fullmatch(r"-?\d+", text) else text.strip("\"'")
