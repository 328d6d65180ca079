"""The version of each detection rule: a digest of its constants and code, so that a changed rule is another rule.

A rule is the module of ``strategies`` that has its class, every module of ``fedsec.defences`` and ``strategies`` that
this one imports, and so on, but for ``strategies.base``, which all strategies share. Comments, docstrings, imports and
layout do not count. A change of what the rule is *given* (training, attackers) is not its own and not seen here.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Callable, Iterator
from functools import cache

from fedsec.run.app import source_of

PLACES_OF_RULES = ("strategies.", "fedsec.defences.")
SHARED = ("strategies.base",)
MODULES = {"fed-detect": "strategies.feddetect", "fed-inspect": "strategies.fedinspect"}
"""Rule (``defence.name``) -> the module of its class."""
FIELDS = ("type_comment", "type_params", "kind", "ctx")
"""Fields of a syntax tree that say nothing, or that only some versions of Python have."""
CALLED = {"b5ec4b4516b5": "2e8e2c32193a", "f3c7e56ae661": "edf7d4808dfe"}
"""Digest -> the name that the same rule had when its modules stood elsewhere: kept cells know it by that."""

Read = Callable[[str], str]
"""Name of a module -> its source."""


def rule_digest(rule: str, read: Read = source_of) -> str:
    """12 hexadecimal digits that change with anything in ``rule`` that computes."""
    modules: dict[str, list[ast.stmt]] = {}
    waiting = [MODULES[rule]]
    while waiting:
        module = waiting.pop()
        if module not in modules:
            modules[module] = ast.parse(read(module)).body
            waiting += _imported(modules[module])
    text = "\n".join(_told([s for s in modules[name] if not _is_import(s)]) for name in sorted(modules))
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


@cache
def rules() -> dict[str, str]:
    """Rule -> its digest as it stands in this process's source files."""
    found = {rule: rule_digest(rule) for rule in MODULES}
    return {rule: CALLED.get(digest, digest) for rule, digest in found.items()}


def _is_import(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Import | ast.ImportFrom)


def _imported(statements: list[ast.stmt]) -> Iterator[str]:
    nodes = [node for statement in statements for node in ast.walk(statement)]
    every = [str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)]
    yield from (name for name in every if name.startswith(PLACES_OF_RULES) and name not in SHARED)


def _told(node: object) -> str:
    """The tree as text that does not depend on the version of Python; without what stands alone as a text."""
    if isinstance(node, list):
        return "[" + ",".join(_told(item) for item in node if not _is_text(item)) + "]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = [(name, value) for name, value in ast.iter_fields(node) if name not in FIELDS and value not in (None, [])]
    return type(node).__name__ + "(" + ",".join(f"{name}={_told(value)}" for name, value in fields) + ")"


def _is_text(node: object) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
