"""What the site has beside the pages of docs/: reference pages made from the code, and links that leave docs/ as paths.

mkdocs calls the functions by their names.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

from fedsec.cli import _parser
from fedsec.config.run_config import meanings

PROJECT = Path(__file__).parents[1]
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\((\.\.?/[^)\s#]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: Any) -> Files:
    for name, text in (("keys", keys()), ("commands", commands()), ("library", library()), ("adding", adding())):
        place = f"{name}.md" if name == "adding" else f"reference/{name}.md"
        files.append(File.generated(config, place, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """A link to a file of the project that is no page becomes its path; one to nothing ends the build."""
    docs, here = Path(config["docs_dir"]), Path(config["docs_dir"], page.file.src_uri).parent

    def path_of(match: re.Match[str]) -> str:
        target = (here / match[2]).resolve()
        if target.is_relative_to(docs) and target.suffix in (".md", ".png", ".toml", ".json"):
            return match[0]
        if not target.exists():
            raise PluginError(f"{page.file.src_uri}: a link to {match[2]}, which is not there")
        path = target.relative_to(PROJECT)
        return f"`{path}`" if match[1].strip("`") in (str(path), path.name) else f"{match[1]} (`{path}`)"

    return LINK.sub(path_of, markdown)


def keys() -> str:
    """Every key, section by section, as ``fedsec config`` lists them."""
    lines, section = ["# Keys", "", "Set in an experiment's TOML, or as `key=value` behind a command."], ""
    for key, default, allowed, meaning in meanings():
        if key.split(".")[0] != section:
            section = key.split(".")[0]
            lines += ["", f"## {section}", "", "| key | default | allowed | meaning |", "|---|---|---|---|"]
        cells = [f"`{key}`", f"`{default!r}`", allowed.replace(" | ", ", "), meaning]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def commands() -> str:
    """Every command's own help."""
    (made,) = (action for action in _parser()._actions if isinstance(action, argparse._SubParsersAction))
    lines = ["# Commands", ""]
    for name, parser in made.choices.items():
        parser.formatter_class = lambda prog: argparse.HelpFormatter(prog, width=100)
        lines += [f"## fedsec {name}", "", "```text", parser.format_help().rstrip(), "```", ""]
    return "\n".join(lines)


def modules() -> Iterator[str]:
    for path in sorted((PROJECT / "fedsec").rglob("*.py")):
        name = ".".join(path.relative_to(PROJECT).with_suffix("").parts)
        if not name.endswith("__init__") and "_app" not in name:
            yield name


def library() -> str:
    """Every module of the library: its words, then what is public in it."""
    text = "# Library\n\nFrom the docstrings. `fedsec` alone is what other packages import.\n"
    return text + "".join(f"\n## {name}\n\n::: {name}\n" for name in modules())


def adding() -> str:
    """CONTRIBUTING.md as a page."""
    return (
        (PROJECT / "CONTRIBUTING.md")
        .read_text(encoding="utf-8")
        .replace("](docs/", "](")
        .replace("](examples", "](../examples")
    )
