"""The version of each detection rule: a digest of its constants and code, so that a changed rule is another rule.

A rule is its class in ``strategies.sleeves``, what that class uses of the module, and every module of ``strategies``
that these import, and so on, but for ``strategies.base``, which all strategies share. Comments, docstrings and layout
do not count. A change of what the rule is *given* (training, attackers) is not its own and not seen here.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

SLEEVES = "strategies.sleeves"
SHARED = ("strategies.base",)
CLASSES = {"fed-detect": "FedDetect", "fed-inspect": "FedInspect"}
"""Rule (``defence.name``) -> its class."""
PLACES = ("type_comment", "type_params", "kind", "ctx")
"""Fields of a syntax tree that say nothing, or that only some versions of Python have."""

Read = Callable[[str], str]
"""Name of a module -> its source."""


def source(module: str) -> str:
    return Path(__file__).with_name(f"{module.rsplit('.', 1)[-1]}.py").read_text(encoding="utf-8")


def rule_digest(rule: str, read: Read = source) -> str:
    """12 hexadecimal digits that change with anything in ``rule`` that computes."""
    pieces = _pieces(ast.parse(read(SLEEVES)), CLASSES[rule])
    modules: dict[str, list[ast.stmt]] = {SLEEVES: [p for p in pieces if not isinstance(p, ast.ImportFrom)]}
    waiting = [*_imported(pieces)]
    while waiting:
        module = waiting.pop()
        if module not in modules:
            modules[module] = ast.parse(read(module)).body
            waiting += _imported(modules[module])
    text = "\n".join(f"{name}: {_told(modules[name])}" for name in sorted(modules))
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


@cache
def rules() -> dict[str, str]:
    """Rule -> its digest as it stands in this process's source files."""
    return {rule: rule_digest(rule) for rule in CLASSES}


def _pieces(module: ast.Module, wanted: str) -> list[ast.stmt]:
    """The top-level statements that give ``wanted`` and all names it uses, in the module's order."""
    gives = [(statement, _names(statement)) for statement in module.body]
    needed, grown = {wanted}, True
    while grown:
        used = {
            node.id
            for statement, names in gives
            if names & needed and not isinstance(statement, ast.ImportFrom)
            for node in ast.walk(statement)
            if isinstance(node, ast.Name)
        }
        grown = not used <= needed
        needed |= used
    return [statement for statement, names in gives if names & needed]


def _names(statement: ast.stmt) -> set[str]:
    if isinstance(statement, ast.ImportFrom):
        return {alias.asname or alias.name for alias in statement.names}
    if isinstance(statement, ast.ClassDef | ast.FunctionDef):
        return {statement.name}
    targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
    return {target.id for target in targets if isinstance(target, ast.Name)}


def _imported(statements: list[ast.stmt]) -> Iterator[str]:
    nodes = [node for statement in statements for node in ast.walk(statement)]
    every = [str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)]
    yield from (name for name in every if name.startswith("strategies.") and name not in (SLEEVES, *SHARED))


def _told(node: object) -> str:
    """The tree as text that does not depend on the version of Python; without what stands alone as a text."""
    if isinstance(node, list):
        return "[" + ",".join(_told(item) for item in node if not _is_text(item)) + "]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = [(name, value) for name, value in ast.iter_fields(node) if name not in PLACES and value not in (None, [])]
    return type(node).__name__ + "(" + ",".join(f"{name}={_told(value)}" for name, value in fields) + ")"


def _is_text(node: object) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
