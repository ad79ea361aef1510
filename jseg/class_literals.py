"""A text of classes that is JSON, Python's literals or YAML's `names:`; nothing of it is run."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Dict, List, Optional, Tuple

LISTS = ("classes", "categories", "labels", "names", "items", "id2label", "label2id")
KEY = re.compile(r"(?P<key>%s)\s*:\s*(?P<value>[\[({].*)?" % "|".join(LISTS), re.I)


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
    if start in ("[", "{", "(") or re.search(r"^\s*[A-Za-z_]\w*\s*=\s*([\[({]|dict\()", text, re.M):
        return _python(text)
    return _yaml(path, text)


def _python(text: str) -> Optional[object]:
    """The literal, or {name: literal} of what a Python text assigns; None where it is neither."""
    try:
        body = ast.parse(text.strip()).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None

    def value(node: ast.AST) -> object:
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("dict", "list", "tuple"):
            if node.keywords:
                return {word.arg: value(word.value) for word in node.keywords}
            return value(node.args[0]) if node.args else None
        return _plain(ast.literal_eval(node))

    try:
        if len(body) == 1 and isinstance(body[0], ast.Expr):
            found = value(body[0].value)
            return found if isinstance(found, (list, dict)) else None
        assigned = [node for node in body if isinstance(node, ast.Assign)]
        if not assigned or len(assigned) < len(body):
            return None
        return {node.targets[0].id: value(node.value) for node in assigned}
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None


def _plain(value: object) -> object:
    """A Python literal as JSON has it."""
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if value is not None and not isinstance(value, (str, int, float)):
        raise ValueError(f"{type(value).__name__} is nothing that JSON has")
    return value


def _yaml(path: Path, text: str) -> Optional[dict]:
    """{key: names} of a YAML text with `names:` and the like above a list or mapping; else None."""
    lines = [re.sub(r"(^|\s)#\s.*$", "", line).rstrip() for line in text.splitlines()]
    lines = [line for line in lines if line.strip() and line.strip() != "---"]
    heads = [number for number, line in enumerate(lines) if KEY.fullmatch(line)]
    if not heads:
        return None

    # Blocks: a key at the margin, and what is indented below it or begins with a dash.
    found: Dict[str, object] = {}
    for number, line in enumerate(lines):
        if line[0].isspace() or line.startswith("-"):
            continue
        key, _, value = line.partition(":")
        below = []
        for other in lines[number + 1 :]:
            if not (other[0].isspace() or other.startswith("-") or other[0] in "]})"):
                break
            below.append(other.strip())
        found[key.strip()] = _yaml_value(path, line, value.strip(), below)
    return found


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
    if all(item.startswith("-") for item in below):
        items = [item[1:].strip() for item in below]
        return [_scalar(item) for item in items]
    pairs = [re.fullmatch(r"[\"']?([^\"':]+)[\"']?\s*:\s+(.+)", item) for item in below]
    if not all(pairs):
        bad = next(item for item, pair in zip(below, pairs) if not pair)
        raise ValueError(
            f"{path}: {bad[:60]!r} below {line!r} is not understood; expected '- name' or '0: name'"
        )
    return {pair[1].strip(): _scalar(pair[2].strip()) for pair in pairs}


def _scalar(text: str) -> object:
    if text[:1] in ("[", "("):
        return _python(text) or text
    return int(text) if re.fullmatch(r"-?\d+", text) else text.strip("\"'")
