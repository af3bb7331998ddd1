"""The elements of a report page: one HTML file that includes its style and its script, and loads nothing.

The page is complete without its script, which sorts and searches tables, unfolds what is printed, and switches colours.
Its policy lets a browser run no other script. Arguments named `html` are markup; all others are text, which is escaped.
"""

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from html import escape
from importlib.resources import files

STYLE, SCRIPT = (
    files("pipelines.report").joinpath(name).read_text(encoding="utf-8") for name in ("style.css", "script.js")
)
POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
    f"script-src 'sha256-{base64.b64encode(sha256(SCRIPT.encode()).digest()).decode()}'"
)


LONG = 26  #: letters of a cell that is on one line
MANY = 9  #: columns of a table whose words are broken on paper
FEW = 4  #: sections of a page without a list of them


class Absent(str):
    """An item of the list of parts that the page lacks, with the reason; `lacking` makes the list."""


def page(title: str, html: Iterable[str]) -> str:
    """Return the whole HTML file."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(filter(None, html))
        + f"\n</main>\n<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


def section(heading: str, intro: str, *html: str, reasons: Iterable[str] = ()) -> str:
    """A section: a heading, an introduction, and the content.

    reasons: sentences about content that is missing. With reasons only, the section is an item of what the page lacks;
    without either there is nothing.
    """
    content, reasons = [part for part in html if part], [reason for reason in reasons if reason]
    if not content:
        return absent(heading, reasons) if reasons else ""
    parts = [paragraph(intro), *content, *map(paragraph, reasons)]
    return f'<section id="{anchor(heading)}">\n<h2>{escape(heading)}</h2>\n' + "\n".join(parts) + "\n</section>"


def anchor(heading: str) -> str:
    """Return the name of a section in links: the letters of its heading, and a checksum where others were left out."""
    plain = re.sub("[^a-z0-9]+", "-", heading.lower()).strip("-")
    return plain if re.fullmatch("[A-Za-z0-9 -]+", heading) else f"{plain}-{sha256(heading.encode()).hexdigest()[:4]}"


def contents(html: Iterable[str]) -> str:
    """A folded list of links to the sections among these parts; nothing for a few sections."""
    found = [re.match('<section id="([^"]+)">\n<h2>(.*?)</h2>', part) for part in html]
    links = [f'<li><a href="#{match[1]}">{match[2]}</a></li>' for match in found if match]
    listed = f'<ul class="notes columns">{"".join(links)}</ul>'
    return f"<nav><details><summary>Sections</summary>{listed}</details></nav>" if len(links) > FEW else ""


def absent(heading: str, reasons: Iterable[str]) -> Absent:
    """The item about a part that the page lacks."""
    return Absent(f"<li><b>{escape(heading)}</b>: {prose(' '.join(reasons))}</li>")


def prose(text: str) -> str:
    """Escape a text; what is between `backticks` is code."""
    return re.sub("`([^`]+)`", r"<code>\1</code>", escape(text))


def lacking(items: Iterable[Absent]) -> str:
    """The section of what the page lacks; nothing if there are no items."""
    listed = "".join(items)
    return section("Not on this page", "", f'<ul class="notes">{listed}</ul>' if listed else "")


def paragraph(text: str, kind: str = "soft") -> str:
    """A paragraph of a CSS class; nothing for an empty text."""
    return f'<p class="{kind}">{prose(text)}</p>' if text else ""


def alarm(text: str) -> str:
    """A warning in a red box."""
    return f'<p class="alarm" role="note">{prose(text)}</p>'


def remark(text: str) -> str:
    """A remark for readers of the numbers, in a quiet box; nothing for an empty text."""
    return f'<p class="remark" role="note">{prose(text)}</p>' if text else ""


def figure(caption: str, html: str, kind: str = "card") -> str:
    """A captioned panel."""
    return f'<figure class="{kind}"><figcaption>{escape(caption)}</figcaption>{html}</figure>'


def panels(html: Iterable[str], kind: str = "") -> str:
    """Panels side by side where there is room; nothing without panels."""
    content = "".join(html)
    return f'<div class="panels {kind}">{content}</div>' if content else ""


def tiles(entries: Iterable[tuple[str, str, str]]) -> str:
    """Key figures: (name, value, remark) each."""
    return (
        '<div class="tiles">'
        + "".join(
            f'<div class="card tile"><span class="soft">{escape(name)}</span><b>{escape(value)}</b>'
            f'<span class="soft">{escape(remark)}</span></div>'
            for name, value, remark in entries
        )
        + "</div>"
    )


def switch(name: str, choices: Mapping[str, str]) -> str:
    """Parts of which one is shown, chosen by its title; on paper all are, one below the other. It needs no script.

    name: that of the group, once per page. choices: title -> html.
    """
    parts = [
        f'<input type="radio" name="{name}" id="{name}-{k}"{" checked" * (k == 0)}/>'
        f'<label for="{name}-{k}">{escape(title)}</label><div class="choice"><h3>{escape(title)}</h3>{html}</div>'
        for k, (title, html) in enumerate(choices.items())
    ]
    return f'<div class="switch">{"".join(parts)}</div>'


#: (CSS class, cells); a cell is markup with its td or th, as `cell` returns it
Rows = Sequence[tuple[str, Sequence[str]]]


def table(heads: Sequence[str], body: Rows, kind: str = "", foot: Rows = ()) -> str:
    """A table; the rows of its foot stay below the others when these are sorted.

    The script makes the columns of every table sortable, and long tables searchable. On paper, letters are smaller
    where there are many columns, so that all of them fit.
    """
    kind = " ".join(filter(None, (kind, "many" * (len(heads) >= MANY))))
    head = "".join(f'<th scope="col"{_kinds(text)}>{breakable(text)}</th>' for text in heads)
    rows, last = (
        "\n".join(f'<tr class="{row_kind}">{"".join(cells)}</tr>' for row_kind, cells in part) for part in (body, foot)
    )
    return (
        f'<div class="scroll" role="region" aria-label="{escape(", ".join(heads[:3]))}, …" tabindex="0">'
        f'<table class="{kind}" style="--columns:{len(heads)}"><thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{rows}\n</tbody>{f'<tfoot>{last}</tfoot>' if last else ''}</table></div>"
    )


def breakable(text: str) -> str:
    """Escape a text that may be broken into lines after an arrow, a slash or an underscore."""
    return re.sub(r"([→/_])(?=\S)", r"\1<wbr/>", escape(text))


def grid(cells: Sequence[Sequence[str]], kind: str = "") -> str:
    """A table of texts, headings first; nothing without lines."""
    heads, *lines = cells
    body = [("", [cell(text, head=place == 0) for place, text in enumerate(line)]) for line in lines]
    return table(heads, body, kind) if body else ""


def cell(text: str, kind: str = "", *, head: bool = False) -> str:
    """A table cell; with `head`, the heading of its row."""
    if head:
        return f'<th scope="row"{_kinds(text)}>{breakable(text)}</th>'
    return f"<td{_kinds(text, kind)}>{breakable(text)}</td>"


def _kinds(text: str, kind: str = "") -> str:
    """The attribute with a cell's CSS classes: its kind, and those of long texts and of words that must be broken."""
    kinds = [kind, "long" * (len(text) > LONG), "anywhere" * bool(re.search(rf"[^\s→/_]{{{LONG},}}", text))]
    return f' class="{" ".join(filter(None, kinds))}"' if any(kinds) else ""


def items(texts: Iterable[str], kind: str = "") -> str:
    """A list of texts; nothing without texts. The kind "columns" sets short texts in several columns."""
    listed = "".join(f"<li>{prose(text)}</li>" for text in texts)
    return f'<ul class="notes {kind}">{listed}</ul>' if listed else ""


def details(summary: str, html: str) -> str:
    """Content that is folded until the reader clicks on the summary; on paper it is unfolded."""
    return f"<details><summary>{escape(summary)}</summary>{html}</details>"


def pre(text: str, kind: str = "") -> str:
    """Preformatted text of a CSS class, which keeps its line breaks."""
    return f'<pre class="{kind}">{escape(text)}</pre>' if kind else f"<pre>{escape(text)}</pre>"
