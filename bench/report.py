"""One page out of what was measured last: plots, and the goals beside the figures.

Everything is in the one file, so that it can be kept or sent as it is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from pathlib import Path

from bench import measure, plots
from bench.row import Row
from bench.run import CONDITIONS, as_shown, kept
from bench.workloads import ALL, summary

PAGE = "report.html"
_STYLE = """
:root { --ink: #1f2430; --soft: #5f6774; --line: #e6e8eb; --good: #3f8f5f; --bad: #c4573f; }
* { box-sizing: border-box }
body { margin: 0; color: var(--ink); background: #f6f7f9; font: 16px/1.5 system-ui, sans-serif }
main { max-width: 1080px; margin: 0 auto; padding: 2.5rem 1.5rem 5rem }
h1 { font-size: 2.2rem; margin: 0 } h2 { font-size: 1.25rem; margin: 0 0 .3rem }
p { color: var(--soft); margin: .2rem 0 1rem } .head { margin-bottom: 2rem }
section { background: white; border: 1px solid var(--line); border-radius: 12px;
  padding: 1.4rem 1.6rem; margin: 1.2rem 0; overflow-x: auto }
section svg { width: 100%; height: auto }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(200px, 1fr)); gap: 1rem }
.tile { background: white; border: 1px solid var(--line); border-radius: 12px; padding: 1rem 1.2rem;
  border-top: 4px solid var(--bad) } .tile.yes { border-top-color: var(--good) }
.tile b { display: block; font-size: 1.55rem; line-height: 1.2 } .tile small { color: var(--soft) }
table { border-collapse: collapse; width: 100%; font-size: .92rem }
th { text-align: left; color: var(--soft); font-weight: 600 }
th, td { padding: .4rem .6rem; border-bottom: 1px solid var(--line) }
td.n { text-align: right; font-variant-numeric: tabular-nums } .yes { color: var(--good) }
.no { color: var(--bad) } details { color: var(--soft); font-size: .9rem }
"""
_PLOTS = (
    (plots.sides, "The relay beside its peers", "One durable hop, the same work, rounds in turns."),
    (plots.costs, "Where a message's time goes", "CPU time by process; pale pieces generate load."),
    (plots.latencies, "Latency", "From when a message was due to decrypted on its device."),
    (plots.ratchets, "The ratchet", "Beside the official client, the same work in turns."),
    (plots.growth, "Growth", "Speed and memory while sessions and waiting messages grow."),
    (plots.memory, "Memory", "By process, at its highest, and with idle connected devices."),
)


def write() -> Path:
    """Draw the page from the lines in the folder of results; where it is."""
    rows = {name: found for name in ALL if (found := kept(name))}
    lines = [line for name, found in rows.items() for line in summary(name, found)]
    measure.RESULTS.mkdir(parents=True, exist_ok=True)
    path = measure.RESULTS / PAGE
    path.write_text(page(rows, lines))
    return path


def page(rows: plots.Kept, lines: Sequence[Row]) -> str:
    """The whole page."""
    with_goals = [line for line in lines if line["goal"] is not None]
    reached = sum(bool(line["reached"]) for line in with_goals)
    parts = [
        '<div class="head"><h1>Letterlock, measured</h1>',
        f"<p>{reached} of {len(with_goals)} goals reached. Medians of the rounds.</p></div>",
        f'<div class="tiles">{"".join(map(_tile, with_goals))}</div>',
    ]
    if with_goals:
        parts.append(
            _section("How far to the goals", "", _inline(plots.goals(with_goals), "goals"))
        )
    for draw, title, caption in _PLOTS:
        if (svg := draw(rows)) is not None:
            parts.append(_section(title, caption, _inline(svg, draw.__name__)))
    parts.append(
        _section("Goals beside figures", "10th and 90th percentile, (rounds).", _table(lines))
    )
    parts.append(
        _section("Conditions", "", "".join(_conditions(name, rows[name]) for name in rows))
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width"><title>Letterlock, measured</title>'
        f"<style>{_STYLE}</style></head>"
        f"<body><main>{''.join(parts)}</main></body></html>\n"
    )


def _tile(line: Row) -> str:
    shown = as_shown(line)
    return (
        f'<div class="tile {shown["reached"]}"><small>{escape(line["workload"])}</small>'
        f"<b>{escape(shown['median'].split(' ')[0])}</b>"
        f"{escape(line['unit'])}<br><small>{escape(line['figure'])}, goal {escape(shown['goal'])}"
        "</small></div>"
    )


def _section(title: str, caption: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2><p>{escape(caption)}</p>{body}</section>"


def _table(lines: Sequence[Row]) -> str:
    if not lines:
        return "<p>Nothing was measured yet.</p>"
    shown = [as_shown(line) for line in lines]
    head = "".join(f"<th>{escape(name)}</th>" for name in shown[0])
    body = "".join(f"<tr>{''.join(map(_cell, row.items()))}</tr>" for row in shown)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(item: tuple[str, str]) -> str:
    name, text = item
    kind = text if name == "reached" else "n" if name in ("median", "10 % to 90 %", "goal") else ""
    return f'<td class="{kind}">{escape(text)}</td>'


def _conditions(name: str, rows: Sequence[Row]) -> str:
    values = ", ".join(f"{key} {value}" for key, value in rows[0][CONDITIONS].items())
    skipped = "".join(
        f"<br>{escape(row['skipped'])} was skipped: {escape(row['because'])}"
        for row in rows
        if "skipped" in row
    )
    return f"<details><summary>{escape(name)}</summary>{escape(values)}{skipped}</details>"


def _inline(svg: str, name: str) -> str:
    """The picture without its prologue, its ids its own: one page holds several."""
    inner = svg[svg.index("<svg") :]
    inner = re.sub(r'\bid="', f'id="{name}-', inner)
    inner = inner.replace("url(#", f"url(#{name}-")
    return inner.replace('href="#', f'href="#{name}-')
