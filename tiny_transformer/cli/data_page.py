"""A data report as one HTML page: no script, no font, no picture from elsewhere; light or dark as the reader's system is.

Read before: data_plots.py, corpora/inventory.py.
"""

from html import escape

from tiny_transformer.cli.data_facts import Section, sections
from tiny_transformer.cli.data_plots import PICTURES, svg
from tiny_transformer.cli.screen import visible
from tiny_transformer.corpora.inventory import Inventory

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #ffffff; --card: #f7f7f4; --ink: #22223b; --soft: #6c7086; --faint: #d9dbe3; --accent: #c1440e; --bar: #2a6f97;
}
@media (prefers-color-scheme: dark) {
  :root { --paper: #16161d; --card: #1f1f28; --ink: #e4e4ef; --soft: #9a9cb3; --faint: #3a3b4a; --accent: #ff8a5c; --bar: #6bb1dd; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 2rem 1.2rem 4rem; }
h1 { font-size: 1.7rem; margin: 0 0 .2rem; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 0 0 .7rem; }
p { margin: .3rem 0; color: var(--soft); }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: .8rem; margin: 1.4rem 0; }
.figures div { background: var(--card); border-radius: 10px; padding: .7rem .9rem; }
.figures b { display: block; font-size: 1.35rem; font-variant-numeric: tabular-nums; }
.figures span { color: var(--soft); font-size: .85rem; }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(440px, 100%), 1fr)); gap: 1rem; }
section { background: var(--card); border-radius: 12px; padding: 1.1rem 1.2rem; min-width: 0; overflow-x: auto; }
.wide { grid-column: 1 / -1; }
svg { width: 100%; height: auto; display: block; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; }
th { text-align: left; color: var(--soft); font-weight: 500; }
th, td { padding: .3rem .8rem .3rem 0; border-bottom: 1px solid var(--faint); vertical-align: top; }
td { font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
tr:last-child > * { border-bottom: 0; }
.alarm td { color: var(--accent); }
"""


def page(report: Inventory, source: str) -> str:
    """The whole page."""
    pictures = "".join(f"<section><h2>{escape(title)}</h2>{svg(draw(report), name)}</section>" for name, (title, draw) in PICTURES.items())
    name = escape(visible(report.name))
    return (
        "<!doctype html>\n"
        f'<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{name}: data report</title><style>{STYLE}</style></head>\n"
        f"<body><main><h1>{name}</h1><p>{escape(visible(source))}</p>{_figures(report)}"
        f'<div class="columns">{"".join(_section(part) for part in sections(report))}{pictures}</div>'
        "</main></body></html>\n"
    )


def _figures(report: Inventory) -> str:
    repeated = report.repeated["documents"].copies + report.repeated["near documents"].copies
    cards = [
        (f"{report.characters.tokens:,}", "characters"),
        (f"{report.words.tokens:,}", "words"),
        (f"{report.lines.lines:,}", "lines"),
        (f"{report.documents:,}", "documents"),
        (f"{repeated:,}", "documents repeated or nearly so"),
        (f"{sum(finding.count for finding in report.findings):,}", "odd things found"),
    ]
    if report.leak is not None:
        cards.append((f"{report.leak.share:.2%}", "of the validation text is also training text"))
    return '<div class="figures">' + "".join(f"<div><b>{value}</b><span>{escape(label)}</span></div>" for value, label in cards) + "</div>"


def _section(part: Section) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in part.columns)
    rows = "".join(
        f"<tr{' class=alarm' if row.alarm else ''}>" + "".join(f"<td>{escape(visible(cell))}</td>" for cell in row.cells) + "</tr>"
        for row in part.rows
    )
    wide = ' class="wide"' if len(part.columns) > 3 else ""
    return f"<section{wide}><h2>{escape(part.title)}</h2><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></section>"
