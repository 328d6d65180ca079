"""Numbers of the README and of result pages, drawn from ``docs/claims.toml``:
``python -m studies.claims.claims --write``.

What: every number that is claimed stands in a page as ``<!--c:ID-->0.92<!--/c-->`` (``<!--c:ID.interval-->`` for
its interval); the comments are invisible where the page is shown. ``--write`` fills the marks, ``--check`` exits with 1
when a page, a file or the table of claims disagrees; ``--show ID`` prints what the files give.
Guarantee: ``faults`` is empty only when every claim is complete, is what its files give to the digits printed, stands
in each of its pages, and no protective claim lacks an attacker that knows the protection and data it was not chosen on;
and when no number of a watched page stands outside a claim but for the list ``allow``, each with its reason;
every page of docs/results is watched or says in ``unwatched`` why it is not.
Nothing from the table is evaluated: a number is found by keys, by equal fields of a line, or by a table's
row and column.
Limits: it cannot tell that a sentence says what its number means, nor a promise in words that ``PROMISE`` lacks.
"""

from __future__ import annotations

import argparse
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from studies.claims.selectors import UnreadError, numbers, printed

PROJECT = Path(__file__).parents[2]
TABLE = "docs/claims.toml"
RESULTS = "docs/results"
KINDS = ("measure", "attack", "protective")
FIELDS = ("id", "sentence", "kind", "value", "interval", "seeds", "chosen", "tested", "attackers", "adapted", "command")
NONE = "none"
MARK = re.compile(r"<!--c:([a-z0-9.-]+)-->(.*?)<!--/c-->", re.DOTALL)
# What is no prose: code, comments (marks are taken out before), targets of links, addresses.
ASIDE = (r"```.*?```", r"`[^`\n]*`", r"<!--.*?-->", r"!?\[(?=[^\]]*\]\()|\]\([^)]*\)", r"https?://\S+")
# A number is a digit that is not part of a name: ResNet-18, HAM10000, L2.
NUMBER = re.compile(r"(?<![\w.])(?<![A-Za-z]-)[+\-−]?\d[\d.,]*")
# Words by which a page promised more than was measured. A sentence with one of them carries a protective claim.
PROMISE = re.compile(r"\b(safe|secure|ends it|takes? (?:\w+ ){0,5}out|removes?|prevents?|protects?|defeats?)\b", re.I)


def load(project: Path = PROJECT) -> dict[str, Any]:
    """The table of claims: ``claim``, ``allow`` (page, text, why), ``watched`` (pages, and how much of each) and
    ``unwatched`` (pages of results, and why)."""
    return tomllib.loads((project / TABLE).read_text(encoding="utf-8"))


def texts(table: Mapping[str, Any]) -> dict[str, str]:
    """What stands in a page under each mark."""
    values = {claim["id"]: claim["value"] for claim in table["claim"]}
    return values | {f"{claim['id']}.interval": claim["interval"] for claim in table["claim"] if claim["interval"]}


def fill(page: str, known: Mapping[str, str]) -> str:
    """The page with every mark filled. KeyError: a mark without a claim."""
    return MARK.sub(lambda mark: f"<!--c:{mark[1]}-->{known[mark[1]]}<!--/c-->", page)


def incomplete(claim: Mapping[str, Any]) -> list[str]:
    """What the claim does not say, and what a protective one may not lack."""
    name = claim.get("id", "a claim without id")
    found = [f"{name}: no '{field}'" for field in (*FIELDS, "pages", "read") if field not in claim]
    if found:
        return found
    if claim["kind"] not in KINDS:
        found.append(f"{name}: kind is one of {', '.join(KINDS)}")
    if claim["adapted"] != NONE and claim["adapted"] not in claim["attackers"]:
        found.append(f"{name}: the adapted attacker '{claim['adapted']}' is not among the attackers tried")
    if claim["kind"] == "protective":
        if claim["adapted"] in (NONE, ""):
            found.append(f"{name}: protective, but no attacker that knows the protection was tried")
        if claim["chosen"] == claim["tested"]:
            found.append(f"{name}: protective, but tested on the data it was chosen on")
    return found


def untrue(claim: Mapping[str, Any], project: Path = PROJECT) -> list[str]:
    """What the files give that is not what the claim says; empty when they agree to the digits printed."""
    found = []
    for part in ("value", "interval"):
        reads = [read for read in claim["read"] if read.get("of", "value") == part]
        try:
            given = [number for read in reads for number in numbers(read, project)]
        except UnreadError as problem:
            found.append(f"{claim['id']}: {problem}")
            continue
        stated = printed(claim[part])
        same = len(given) == len(stated) and all(
            abs(ours - theirs) <= half for ours, (theirs, half) in zip(given, stated, strict=True)
        )
        if not same:
            shown = ", ".join(f"{number:.6g}" for number in given)
            found.append(f"{claim['id']}: the {part} says '{claim[part]}', the files give {shown or 'nothing'}")
    return found


def misplaced(table: Mapping[str, Any], pages: Mapping[str, str]) -> list[str]:
    """Marks without a claim, claims that stand nowhere, and pages whose marks hold something else."""
    known, found = texts(table), []
    names = [claim["id"] for claim in table["claim"]]
    found += [f"{name}: this id is given twice" for name in sorted({name for name in names if names.count(name) > 1})]
    for path, page in pages.items():
        for name, text in MARK.findall(page):
            if name not in known:
                found.append(f"{path}: no claim '{name}'")
            elif text != known[name]:
                found.append(f"{path}: '{name}' is {text!r}, claimed is {known[name]!r}")
    for claim in table["claim"]:
        for path in claim["pages"]:
            if claim["id"] not in [name.removesuffix(".interval") for name, _ in MARK.findall(pages.get(path, ""))]:
                found.append(f"{claim['id']}: does not stand in {path}")
    return found


def watched_text(page: str, part: str) -> str:
    """``all`` of a page; its ``screen``: what stands above the first part, without tables; ``short``: its "In short".

    Tables of result pages are held against files by tests/test_pages.py, and settings are not claims: what such a page
    claims on its first screen is the paragraph that begins with "**In short.**". Empty: the page has none.
    """
    if part == "all":
        return page
    screen = re.split(r"^## ", page, maxsplit=1, flags=re.MULTILINE)[0]
    if part == "short":
        return "\n\n".join(text for text in screen.split("\n\n") if text.startswith("**In short.**"))
    return "\n".join(line for line in screen.splitlines() if not line.startswith("|"))


def prose(page: str, allowed: Sequence[str]) -> str:
    """The page without marks, code, links and what is allowed."""
    for pattern in (MARK.pattern, *ASIDE):
        page = re.sub(pattern, " ", page, flags=re.DOTALL)
    for text in sorted(allowed, key=len, reverse=True):
        page = page.replace(text, " ")
    return page


def unclaimed(path: str, page: str, allowed: Sequence[str]) -> list[str]:
    """Numbers of the page that stand outside a claim, with the words around them."""
    text = prose(page, allowed)
    return [
        f"{path}: '{hit[0]}' is in no claim: ...{' '.join(text[max(0, hit.start() - 50) : hit.end() + 30].split())}..."
        for hit in NUMBER.finditer(text)
    ]


def promised(path: str, page: str, table: Mapping[str, Any]) -> list[str]:
    """Sentences that promise protection and carry no protective claim."""
    kinds = {claim["id"]: claim["kind"] for claim in table["claim"]}
    allowed = [entry["text"] for entry in table["allow"] if entry["page"] == path]
    found = []
    for sentence in re.split(r"(?<=[.:;?!|])\s|\n(?=[-|#\n])", page):
        names = [name.removesuffix(".interval") for name, _ in MARK.findall(sentence)]
        hit = PROMISE.search(prose(sentence, allowed))
        if hit and "protective" not in [kinds.get(name) for name in names]:
            found.append(
                f"{path}: '{hit[0]}' promises, but no protective claim stands in: {' '.join(sentence.split())}"
            )
    return found


def overlooked(table: Mapping[str, Any], project: Path = PROJECT) -> list[str]:
    """Pages of results that nothing watches and nothing excuses, and excuses that excuse nothing."""
    pages = {page.relative_to(project).as_posix(): page for page in sorted((project / RESULTS).glob("*.md"))}
    watched, excused = table["watched"], table.get("unwatched", {})
    found = [f"{path}: a page of results that is not watched" for path in pages if path not in {*watched, *excused}]
    for path, why in excused.items():
        found += [] if why else [f"{path}: is not watched, without a reason"]
        found += [f"{path}: is excused, but watched or not there"] if path in watched or path not in pages else []
    return found


def faults(project: Path = PROJECT) -> list[str]:
    """Everything that is wrong with claims and pages; empty when nothing is."""
    table = load(project)
    found = [fault for claim in table["claim"] for fault in incomplete(claim)]
    if found:
        return found
    paths = sorted({path for claim in table["claim"] for path in claim["pages"]} | set(table["watched"]))
    pages = {path: (project / path).read_text(encoding="utf-8") for path in paths}
    found = [fault for claim in table["claim"] for fault in untrue(claim, project)] + misplaced(table, pages)
    found += overlooked(table, project)
    for path, part in table["watched"].items():
        text = watched_text(pages[path], part)
        found += [] if text else [f"{path}: there is no {part} to watch"]
        allowed = [entry for entry in table["allow"] if entry["page"] == path]
        found += [
            f"{path}: '{entry['text']}' is allowed, but not there" for entry in allowed if entry["text"] not in text
        ]
        found += [f"{path}: '{entry['text']}' is allowed without a reason" for entry in allowed if not entry["why"]]
        found += unclaimed(path, text, [entry["text"] for entry in allowed])
        found += promised(path, text, table)
    return found


def write(project: Path = PROJECT) -> list[str]:
    """Fills the marks of every page that a claim names or that is watched; the pages that changed."""
    table = load(project)
    known, changed = texts(table), []
    for path in sorted({path for claim in table["claim"] for path in claim["pages"]} | set(table["watched"])):
        page = (project / path).read_text(encoding="utf-8")
        new = fill(page, known)
        if new != page:
            (project / path).write_text(new, encoding="utf-8")
            changed.append(path)
    return changed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    choice = parser.add_mutually_exclusive_group(required=True)
    choice.add_argument("--write", action="store_true", help="fill the marks of the pages")
    choice.add_argument("--check", action="store_true", help="exit with 1 when anything disagrees")
    choice.add_argument("--show", metavar="ID", help="what the files of a claim give")
    options = parser.parse_args()
    if options.show:
        for claim in load()["claim"]:
            if claim["id"] == options.show:
                for read in claim["read"]:
                    print(read.get("of", "value"), *numbers(read, PROJECT))
        return
    if options.write:
        print("\n".join(write()))
    found = faults()
    print("\n".join(found))
    raise SystemExit(1 if found else 0)


if __name__ == "__main__":
    main()
