"""The elements of a report page: one HTML file that includes its style, loads nothing and needs no script.

Arguments named `html` are markup; all other arguments are text, which is escaped here.
"""

from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files

STYLE = files("pipelines.report").joinpath("style.css").read_text(encoding="utf-8")


def page(title: str, html: Iterable[str]) -> str:
    """Return the whole HTML file."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(html)
        + "\n</main>\n</body>\n</html>\n"
    )


def section(heading: str, intro: str, *html: str) -> str:
    """A section: a heading, an introduction, and the content."""
    return f"<section>\n<h2>{escape(heading)}</h2>\n{paragraph(intro)}\n" + "\n".join(html) + "\n</section>"


def paragraph(text: str, kind: str = "soft") -> str:
    """A paragraph of a CSS class; nothing for an empty text."""
    return f'<p class="{kind}">{escape(text)}</p>' if text else ""


def alarm(text: str) -> str:
    """A warning in a red box."""
    return f'<p class="alarm" role="note">{escape(text)}</p>'


def figure(caption: str, html: str, kind: str = "card") -> str:
    """A captioned panel."""
    return f'<figure class="{kind}"><figcaption>{escape(caption)}</figcaption>{html}</figure>'


def panels(html: Iterable[str], kind: str = "") -> str:
    """Panels side by side where there is room."""
    return f'<div class="panels {kind}">{"".join(html)}</div>'


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


def table(heads: Sequence[str], body: Sequence[tuple[str, Sequence[str]]], kind: str = "") -> str:
    """A table. Each row of the body is (CSS class, cells); a cell is markup with its td or th, as `cell` returns it."""
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in heads)
    rows = "\n".join(f'<tr class="{row_kind}">{"".join(cells)}</tr>' for row_kind, cells in body)
    return (
        f'<div class="scroll"><table class="{kind}"><thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{rows}\n</tbody></table></div>"
    )


def cell(text: str, kind: str = "", *, head: bool = False) -> str:
    """A table cell; with `head`, the heading of its row."""
    if head:
        return f'<th scope="row">{escape(text)}</th>'
    return f'<td class="{kind}">{escape(text)}</td>' if kind else f"<td>{escape(text)}</td>"


def items(texts: Iterable[str]) -> str:
    """A list of texts."""
    return '<ul class="notes">' + "".join(f"<li>{escape(text)}</li>" for text in texts) + "</ul>"


def details(summary: str, html: str) -> str:
    """Content that is folded until the reader clicks on the summary."""
    return f"<details><summary>{escape(summary)}</summary>{html}</details>"


def pre(text: str) -> str:
    """Preformatted text, which keeps its line breaks."""
    return f"<pre>{escape(text)}</pre>"
