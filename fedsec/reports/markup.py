"""HTML pieces of the report. Every text goes through ``inert``: what a client sent is shown, never obeyed."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence

_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")
_BREAK = re.compile(r"[\r\n\u2028\u2029\x0b\x0c\x85]+")
_INVISIBLE = re.compile(
    r"[\x00-\x08\x0e-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\ud800-\udfff\ufffe\uffff]"
)
_ABSOLUTE = re.compile(r"(?<![\w.<:/\\])(?:[A-Za-z]:)?[/\\](?:[^\s/\\'\"<>|,;:()]+[/\\])+(?=[^\s/\\'\"<>|,;:()])")
LONGEST = 300
"""Characters of one text that are shown."""

STYLE = """
:root { color-scheme: light dark; --ink: #1d2126; --soft: #5b6470; --line: #d5dae0; --page: #fff; --box: #f5f7f9;
  --accent: #0072b2; --warn: #a34700;
  --sans: system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7eb; --soft: #a3acb8; --line: #3a424c; --page: #15181c;
  --box: #1e2328; --accent: #56b4e9; --warn: #f0a05a; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 68rem; padding: 1.5rem 1rem 4rem; background: var(--page); color: var(--ink);
  font: 16px/1.5 var(--sans); }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .25rem; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .5rem; padding-top: .5rem; border-top: 1px solid var(--line); }
p, ul, ol { max-width: 46rem; }
.soft, figcaption, caption { color: var(--soft); font-size: .875rem; }
.verdict { background: var(--box); border-left: 4px solid var(--accent); padding: .75rem 1rem; margin: 1rem 0; }
.verdict p.head { font-size: 1.1rem; font-weight: 600; margin: .25rem 0 .75rem; }
.verdict dl { margin: 0; }
.verdict dt { font-weight: 600; margin-top: .6rem; }
.verdict dd { margin: 0 0 .35rem; max-width: 52rem; }
.warn { color: var(--warn); }
.scroll { overflow-x: auto; margin: .5rem 0 1rem; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding: .25rem 0; }
th, td { text-align: left; vertical-align: top; padding: .3rem .9rem .3rem 0; border-bottom: 1px solid var(--line); }
thead th { border-bottom: 2px solid var(--line); vertical-align: bottom; }
th { font-weight: 600; }
tbody th { font-weight: 500; white-space: nowrap; }
td.num, th.num { text-align: right; }
td.num, td.num small { white-space: nowrap; }
th small, td small { color: var(--soft); font-weight: 400; }
td small { display: block; }
td { max-width: 40rem; overflow-wrap: break-word; }
dd, li { overflow-wrap: anywhere; }
code { font-size: .9em; }
abbr { text-decoration: none; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(24rem, 100%), 1fr)); gap: 1rem 1.5rem; }
figure { margin: .5rem 0; break-inside: avoid; max-width: 34rem; }
figure svg { width: 100%; height: auto; display: block; overflow: visible; }
figcaption { margin-bottom: .25rem; }
figcaption strong { color: var(--ink); }
.heat { display: inline-block; min-width: 3.2em; padding: .05rem .4rem; border-radius: 3px; }
.legend { display: flex; flex-wrap: wrap; gap: .1rem 1.1rem; margin: .25rem 0; padding: 0; list-style: none;
  font-size: .875rem; max-width: none; }
.legend svg { width: 2.4em; height: .9em; vertical-align: -.1em; margin-right: .35em; }
table.samples th, table.samples td { padding: .25rem .5rem .5rem 0; border: 0; }
table.samples tbody th { white-space: normal; min-width: 5rem; max-width: 9rem; overflow-wrap: anywhere; }
img { display: block; width: 100%; height: auto; }
img.sharp { image-rendering: pixelated; }
table.samples img { width: 17rem; max-width: 70vw; }
details { margin: .75rem 0; }
summary { cursor: pointer; color: var(--accent); }
@media print {
  :root { color-scheme: light; --ink: #000; --soft: #444; --line: #bbb; --page: #fff; --box: #f5f7f9;
    --accent: #0072b2; --warn: #a34700; }
  body { max-width: none; padding: 0; font-size: 10pt; }
  .scroll { overflow: visible; }
  .plots { grid-template-columns: 1fr 1fr; }
  table.samples tbody th { white-space: normal; min-width: 5rem; max-width: 9rem; overflow-wrap: anywhere; }
  .sheet { break-after: page; }
  table.samples img { width: 4.6cm; }
  h2 { break-after: avoid; }
  tr { break-inside: avoid; }
}
"""


def inert(text: object, longest: int = LONGEST) -> str:
    """Escaped text on one line: no markup, escape sequence, control or direction mark, no path of this machine.

    Line breaks become a visible sign; an absolute path loses its folders; more than ``longest`` characters are cut.
    """
    plain = _INVISIBLE.sub("", _BREAK.sub(" ⏎ ", _ANSI.sub("", str(text))))
    plain = _ABSOLUTE.sub("…/", plain)
    if len(plain) > longest:
        plain = plain[:longest] + " … (cut)"
    return html.escape(plain, quote=True)


def paragraph(text: str, kind: str = "") -> str:
    """``text`` is markup that is already inert."""
    return f'<p class="{kind}">{text}</p>' if kind else f"<p>{text}</p>"


def section(title: str, *parts: str) -> str:
    return f"<section>\n<h2>{inert(title)}</h2>\n" + "\n".join(part for part in parts if part) + "\n</section>\n"


def details(summary: str, *parts: str) -> str:
    inside = "\n".join(part for part in parts if part)
    return f"<details><summary>{inert(summary)}</summary>\n{inside}\n</details>" if inside else ""


def table(
    caption: str, head: Sequence[str], rows: Iterable[Sequence[str]], *, numeric: bool = False, kind: str = ""
) -> str:
    """A table with a header row and a header column. ``head`` and cells are markup; ``numeric`` aligns to the right."""
    place = ' class="num"' if numeric else ""
    top = "".join(f'<th scope="col"{place if i else ""}>{cell}</th>' for i, cell in enumerate(head))
    body = "".join(
        f'<tr><th scope="row">{row[0]}</th>' + "".join(f"<td{place}>{cell}</td>" for cell in row[1:]) + "</tr>\n"
        for row in rows
    )
    mark = f' class="{kind}"' if kind else ""
    return (
        f'<div class="scroll"><table{mark}><caption>{inert(caption)}</caption>\n'
        f"<thead><tr>{top}</tr></thead>\n<tbody>\n{body}</tbody></table></div>"
    )


def figure(drawing: str, title: str, caption: str = "") -> str:
    """``drawing`` is markup from ``figures``; title and caption are plain text."""
    note = f"<br>{inert(caption)}" if caption else ""
    return f"<figure><figcaption><strong>{inert(title)}</strong>{note}</figcaption>{drawing}</figure>"


def plots(figures: Sequence[str]) -> str:
    return '<div class="plots">' + "\n".join(figures) + "</div>" if figures else ""


def page(title: str, body: str, *, again: int = 0) -> str:
    """One document that may load nothing: the policy in its head forbids every outside resource and every script.
    ``again``: seconds after which a reader's browser opens it anew; 0 for never."""
    anew = f'<meta http-equiv="refresh" content="{again}">\n' if again else ""
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n{anew}'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{inert(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{body}</body>\n</html>\n"
    )
