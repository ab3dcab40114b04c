"""HTML pieces of a report: escaping, tables, cards, bars and the one style sheet; `write` puts a page on disk."""

from __future__ import annotations

import html
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

STYLE = """
:root { --ink: #212529; --soft: #6c757d; --line: #e9ecef; --wash: #f8f9fa; --blue: #2563eb; }
* { box-sizing: border-box; }
body { margin: 0; background: #fff; color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, Helvetica, Arial, sans-serif; }
main { max-width: 1160px; margin: 0 auto; padding: 36px 28px 60px; }
h1 { font-size: 27px; line-height: 1.25; margin: 0 0 6px; letter-spacing: -0.01em; overflow-wrap: anywhere; }
h1 i { color: #adb5bd; font-style: normal; font-weight: 400; padding: 0 5px; }
h2 { font-size: 17px; margin: 42px 0 14px; padding-top: 18px; border-top: 1px solid var(--line); }
h3 { font-size: 13px; font-weight: 600; margin: 0 0 4px; color: #343a40; }
p { margin: 0 0 8px; } .verdict { font-size: 16px; } .soft { color: var(--soft); font-size: 13.5px; }
.badge { display: inline-block; font-size: 12px; font-weight: 600; padding: 2px 9px; border-radius: 11px;
  vertical-align: 4px; margin-left: 8px; background: #d3f9d8; color: #2b8a3e; }
.badge.open { background: #fff3bf; color: #8f5f00; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px;
  margin: 22px 0 0; }
.card { background: var(--wash); border: 1px solid var(--line); border-radius: 9px; padding: 11px 15px; }
.card b { display: block; font-size: 23px; font-weight: 650; line-height: 1.3; letter-spacing: -0.01em; }
.card span { display: block; color: var(--soft); font-size: 12.5px; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(480px, 1fr)); gap: 22px; }
.small { display: grid; grid-template-columns: repeat(auto-fill, minmax(255px, 1fr)); gap: 20px 16px; }
.half { display: grid; grid-template-columns: repeat(auto-fit, minmax(340px, 1fr)); gap: 8px 40px;
  align-items: start; }
.flow { columns: 3 300px; column-gap: 40px; } .flow > div { break-inside: avoid; }
figure { margin: 0; min-width: 0; } figure svg { width: 100%; height: auto; display: block; }
figcaption { color: var(--soft); font-size: 12.5px; }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; margin-bottom: 14px; }
td, th { text-align: left; vertical-align: top; padding: 4px 10px 4px 0; border-bottom: 1px solid #e9ecef; }
th { font-weight: 500; color: var(--soft); width: 44%; }
td { font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.listing th { width: auto; }
caption { text-align: left; font-weight: 600; font-size: 13px; padding: 6px 0 3px; }
.bar { display: flex; height: 30px; border-radius: 6px; overflow: hidden; gap: 2px; margin: 4px 0 10px; }
.key { display: flex; flex-wrap: wrap; gap: 4px 26px; font-size: 13.5px; }
.key i { display: inline-block; width: 11px; height: 11px; border-radius: 3px; margin-right: 7px; }
.films { display: flex; flex-wrap: wrap; gap: 20px; align-items: flex-start; }
.films img { display: block; max-width: 100%; min-width: 160px; border: 1px solid var(--line);
  border-radius: 6px; image-rendering: pixelated; }
footer { margin-top: 44px; padding-top: 14px; border-top: 1px solid var(--line); }
@media print { main { max-width: none; padding: 0; } figure, .card, tr { break-inside: avoid; } }
"""


def page(title: str, body: Iterable[str]) -> str:
    """A whole document. title: plain text; body: HTML pieces in order."""
    return "\n".join(
        [
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>",
            *body,
            "</main>\n</body>\n</html>\n",
        ]
    )


def write(path: Path, title: str, body: Iterable[str]) -> Path:
    """Write a document in one move; empty pieces are left out."""
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(page(title, [piece for piece in body if piece]), encoding="utf-8")
    os.replace(fresh, path)
    return path


def escape(value: Any) -> str:
    """Text, safe inside elements and quoted attributes."""
    return html.escape(str(value), quote=True)


def section(title: str, *pieces: str) -> str:
    """A titled part of the page, or nothing where all its pieces are empty."""
    inside = "\n".join(piece for piece in pieces if piece)
    return f"<section>\n<h2>{escape(title)}</h2>\n{inside}\n</section>" if inside else ""


def cards(items: Sequence[tuple[str, str, str]]) -> str:
    """Big figures in a row: (what, value, remark) each, plain text."""
    escaped = [tuple(map(escape, item)) for item in items]
    cells = [
        f'<div class="card"><span>{what}</span><b>{value}</b><span>{remark}</span></div>'
        for what, value, remark in escaped
    ]
    return f'<div class="cards">{"".join(cells)}</div>' if cells else ""


def figure(title: str, svg: str, caption: str = "") -> str:
    """A titled chart with its words; `svg` is trusted markup of report_charts."""
    words = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f'<figure aria-label="{escape(title)}"><h3>{escape(title)}</h3>\n{svg}\n{words}</figure>'


def table(rows: Mapping[str, Any], caption: str = "") -> str:
    """Two columns, name and value; nothing where there are no rows."""
    if not rows:
        return ""
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    lines = [f"<tr><th>{escape(k)}</th><td>{escape(show(v))}</td></tr>" for k, v in rows.items()]
    return f"<table>{title}\n" + "\n".join(lines) + "\n</table>"


def listing(rows: Sequence[Mapping[str, Any]]) -> str:
    """A column for every name of the first row; nothing where there are no rows."""
    if not rows:
        return ""
    head = "".join(f"<th>{escape(name)}</th>" for name in rows[0])
    lines = ["".join(f"<td>{escape(show(value))}</td>" for value in row.values()) for row in rows]
    body = "\n".join(f"<tr>{line}</tr>" for line in lines)
    return f'<table class="listing">\n<tr>{head}</tr>\n{body}\n</table>'


def stacked_bar(parts: Sequence[tuple[str, float, str]], unit: str = "s") -> str:
    """One bar split by (name, amount, colour), and its key with amounts and shares."""
    total = sum(amount for _, amount, _ in parts)
    if total <= 0:
        return ""
    pieces, keys = [], []
    for name, amount, colour in parts:
        words = f"{name}: {amount:,.1f} {unit} ({100 * amount / total:.0f} %)"
        pieces.append(f'<div style="flex:{amount / total:.5f} 0 0;background:{colour}" title="{escape(words)}"></div>')
        keys.append(f'<span><i style="background:{colour}"></i>{escape(words)}</span>')
    return f'<div class="bar">{"".join(pieces)}</div>\n<div class="key">{"".join(keys)}</div>'


def show(value: Any) -> str:
    """A value for people: four significant digits, thousands parted, lists joined, None as a dash."""
    if value is None or value == "":
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}".replace(",", "\u2009") if abs(value) >= 10_000 else str(value)
    if isinstance(value, float):
        return show(round(value)) if 10_000 <= abs(value) < 1e12 else f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(show(v) for v in value) or "–"
    if isinstance(value, dict):
        return ", ".join(f"{k} {show(v)}" for k, v in value.items()) or "–"
    return str(value)


def flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one, names joined by dots."""
    out: dict[str, Any] = {}
    for key, item in value.items():
        name = f"{prefix}{key}"
        if isinstance(item, dict) and item:
            out |= flat(item, name + ".")
        else:
            out[name] = item
    return out
