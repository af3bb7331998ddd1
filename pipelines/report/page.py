"""The frame of a report: one HTML file with its style inside, which loads nothing and needs no script.

Arguments named `html` are markup already; everything else is text and is escaped here.
"""

from collections.abc import Iterable, Sequence
from html import escape

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #fbfaf7; --card: #ffffff; --ink: #1d2430; --soft: #5b6472; --rule: #e3e0d8; --grid: #e9e6df;
  --accent: #0b6bab; --on-accent: #ffffff; --base: #8b93a0; --alarm: #a61b1b; --alarm-paper: #fdeaea;
  --m0: #0b6bab; --m1: #c2571a; --m2: #12805c; --m3: #a34a86; --m4: #8a6d00; --m5: #3f8fc7;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14171c; --card: #1c2027; --ink: #e8eaee; --soft: #a2abb8; --rule: #313844; --grid: #2b313b;
    --accent: #62b5ef; --on-accent: #0c1620; --base: #7f8896; --alarm: #ff9d94; --alarm-paper: #3a1d1d;
    --m0: #62b5ef; --m1: #f0955b; --m2: #4fc79b; --m3: #dd8fc2; --m4: #d9ba45; --m5: #9acdf2;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Liberation Sans", sans-serif;
}
main { max-width: 1080px; margin: 0 auto; padding: 40px 22px 70px; }
header { border-bottom: 3px solid var(--accent); padding-bottom: 14px; }
.over { color: var(--accent); font-weight: 600; font-size: 13px; letter-spacing: .09em; text-transform: uppercase; }
h1 { font-size: clamp(28px, 5vw, 40px); line-height: 1.15; margin: 4px 0 10px; letter-spacing: -.015em; }
h2 { font-size: 22px; margin: 46px 0 4px; letter-spacing: -.01em; }
h3 { font-size: 15px; margin: 20px 0 6px; }
p { margin: 8px 0; max-width: 76ch; }
.lead { font-size: 18px; }
.soft, .notes, figcaption { color: var(--soft); font-size: 14px; }
p.soft { max-width: 100ch; }
.card { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: 14px 16px; }
.tiles, .panels { display: grid; gap: 16px; margin: 18px 0; }
.tiles { grid-template-columns: repeat(auto-fit, minmax(200px, 1fr)); }
.panels { grid-template-columns: repeat(auto-fit, minmax(min(100%, 320px), 1fr)); }
.panels.thirds { grid-template-columns: repeat(auto-fit, minmax(min(100%, 280px), 1fr)); }
.tile b { display: block; font-size: 30px; line-height: 1.2; letter-spacing: -.02em; font-variant-numeric: tabular-nums}
.scroll { overflow-x: auto; margin: 16px 0 10px; }
table { border-collapse: collapse; width: 100%; background: var(--card); font-variant-numeric: tabular-nums; }
th, td { padding: 9px 14px; text-align: right; border-bottom: 1px solid var(--rule); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
table.words th, table.words td { text-align: left; }
@media (max-width: 640px) { th, td { padding: 7px 9px; font-size: 14px; } main { padding: 26px 16px 50px; } }
thead th { font-size: 13px; color: var(--soft); font-weight: 600; border-bottom: 2px solid var(--ink); }
tbody th { font-weight: 500; }
td.best { font-weight: 700; color: var(--accent); }
tr.reference { color: var(--soft); }
.notes { padding-left: 18px; margin: 8px 0; }
.notes li { margin: 3px 0; }
.alarm {
  color: var(--alarm); background: var(--alarm-paper); border: 1px solid var(--alarm); border-radius: 8px;
  padding: 9px 14px; margin: 10px 0; font-weight: 600; max-width: none;
}
.red { color: var(--alarm); font-weight: 700; }
figure { margin: 0; min-width: 0; }
figure > figcaption:first-child { color: var(--ink); font-weight: 600; margin-bottom: 8px; }
.strip { display: grid; grid-template-columns: repeat(auto-fill, minmax(116px, 1fr)); gap: 8px; margin: 6px 0 18px; }
.strip img { width: 100%; aspect-ratio: 4/3; object-fit: cover; border-radius: 6px; display: block; }
.strip figcaption { font-size: 12.5px; margin: 2px 0; }
.strip.people { grid-template-columns: repeat(auto-fill, minmax(min(100%, 280px), 1fr)); }
.people svg { overflow: visible; } .people .wrong figcaption { color: var(--alarm); }
.right figcaption { color: var(--ink); font-weight: 600; }
.right img { outline: 3px solid var(--accent); }
details { margin: 8px 0; }
summary { cursor: pointer; color: var(--accent); }
pre, code { font: 13px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, "Liberation Mono", monospace; }
pre { overflow-x: auto; background: var(--card); border: 1px solid var(--rule); border-radius: 8px; padding: 12px; }
code.hash { color: var(--soft); }
svg { width: 100%; height: auto; display: block; margin: 0 auto; }
svg text { fill: var(--ink); font-size: 12px; font-family: inherit; font-variant-numeric: tabular-nums; }
svg .tick { fill: var(--soft); font-size: 11px; }
svg .name { font-size: 13px; } svg .value { font-size: 13px; font-weight: 600; }
svg .grid { stroke: var(--grid); } svg .error { stroke: var(--ink); stroke-width: 1.6; }
svg .seed { fill: var(--ink); fill-opacity: .55; }
svg .bar { rx: 3px; fill: var(--base); }
svg .reference { fill: none; stroke: var(--base); stroke-width: 1.5; stroke-dasharray: 4 3; }
svg .m0 { fill: var(--m0); } svg .m1 { fill: var(--m1); } svg .m2 { fill: var(--m2); }
svg .m3 { fill: var(--m3); } svg .m4 { fill: var(--m4); } svg .m5 { fill: var(--m5); }
svg .field { fill: var(--paper); stroke: var(--rule); } svg .heat { fill: var(--accent); }
svg .diagonal { fill: none; stroke: var(--soft); stroke-width: .8; }
svg .cell { font-size: 10.5px; } svg .cell.over { fill: var(--on-accent); }
svg .range { stroke: var(--rule); stroke-width: 5; stroke-linecap: round; }
svg .mark { stroke-width: 2; }
svg .k0 { fill: var(--m0); stroke: var(--m0); } svg .k1 { fill: var(--m1); stroke: var(--m1); }
svg .k2 { fill: var(--m2); stroke: var(--m2); } svg .k3 { fill: var(--m3); stroke: var(--m3); }
svg .k4 { fill: var(--m4); stroke: var(--m4); } svg .k5 { fill: var(--m5); stroke: var(--m5); }
svg .hollow { fill: var(--card); } svg .dot { fill-opacity: .6; stroke-width: 0; }
svg .bone { fill: none; stroke: var(--soft); stroke-width: 7; stroke-linecap: round; stroke-linejoin: round; }
svg .head { stroke-width: 24; } svg .floor { stroke: var(--grid); stroke-width: 2; } svg .right { stroke: var(--m1); }
svg .left { stroke: var(--m0); }
@media print {
  :root { color-scheme: light; --paper: #fff; --card: #fff; --ink: #000; --soft: #444; --rule: #ccc; --grid: #ddd;
    --accent: #0b5a90; --on-accent: #fff; --base: #888;
    --m0: #0b6bab; --m1: #c2571a; --m2: #12805c; --m3: #a34a86; --m4: #8a6d00; --m5: #3f8fc7; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  main { max-width: none; padding: 0; } figure, .card, tr { break-inside: avoid; } h2 { break-after: avoid; }
}
"""


def page(title: str, html: Iterable[str]) -> str:
    """The whole file."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(html)
        + "\n</main>\n</body>\n</html>\n"
    )


def section(heading: str, intro: str, *html: str) -> str:
    """A heading, a sentence that says what is to be seen, and the things to see."""
    return f"<section>\n<h2>{escape(heading)}</h2>\n{paragraph(intro)}\n" + "\n".join(html) + "\n</section>"


def paragraph(text: str, kind: str = "soft") -> str:
    """Text in a paragraph of a style."""
    return f'<p class="{kind}">{escape(text)}</p>' if text else ""


def alarm(text: str) -> str:
    """What must not be overlooked."""
    return f'<p class="alarm" role="note">{escape(text)}</p>'


def figure(caption: str, html: str, kind: str = "card") -> str:
    """A captioned panel."""
    return f'<figure class="{kind}"><figcaption>{escape(caption)}</figcaption>{html}</figure>'


def panels(html: Iterable[str], kind: str = "") -> str:
    """Panels side by side where there is room."""
    return f'<div class="panels {kind}">{"".join(html)}</div>'


def tiles(entries: Iterable[tuple[str, str, str]]) -> str:
    """Key figures: what, how much, and a remark."""
    return (
        '<div class="tiles">'
        + "".join(
            f'<div class="card tile"><span class="soft">{escape(what)}</span><b>{escape(value)}</b>'
            f'<span class="soft">{escape(remark)}</span></div>'
            for what, value, remark in entries
        )
        + "</div>"
    )


def table(heads: Sequence[str], body: Sequence[tuple[str, Sequence[str]]], kind: str = "") -> str:
    """A table; each body row is (CSS class, finished cells with their td or th), see `cell`."""
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in heads)
    rows = "\n".join(f'<tr class="{row_kind}">{"".join(cells)}</tr>' for row_kind, cells in body)
    return (
        f'<div class="scroll"><table class="{kind}"><thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{rows}\n</tbody></table></div>"
    )


def cell(text: str, kind: str = "", *, head: bool = False) -> str:
    """One table cell."""
    if head:
        return f'<th scope="row">{escape(text)}</th>'
    return f'<td class="{kind}">{escape(text)}</td>' if kind else f"<td>{escape(text)}</td>"


def items(texts: Iterable[str]) -> str:
    """A list of remarks."""
    return '<ul class="notes">' + "".join(f"<li>{escape(text)}</li>" for text in texts) + "</ul>"


def details(summary: str, html: str) -> str:
    """Folded until someone wants to know."""
    return f"<details><summary>{escape(summary)}</summary>{html}</details>"


def pre(text: str) -> str:
    """Text with its line breaks."""
    return f"<pre>{escape(text)}</pre>"
