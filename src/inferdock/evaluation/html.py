"""The report as one HTML page for people: no scripts, nothing from outside, everything that models wrote escaped."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Final

from inferdock.domain.verdict import Verdict
from inferdock.evaluation.bootstrap import METHOD
from inferdock.evaluation.report import Example, Report, Side, changed_words, measure_cells, spell_finding, spell_sizes
from inferdock.evaluation.verdict import Finding

_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"
_STYLE: Final = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #59636e; --paper: #fff; --line: #d8dee4; --panel: #f6f8fa;
  --pass: #1a7f37; --fail: #c1121f; --inconclusive: #8a5a00; --lost: #ffd7d5; --won: #ccf2d1; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --soft: #9198a1; --paper: #0d1117; --line: #30363d;
  --panel: #161b22; --pass: #3fb950; --fail: #ff7b72; --inconclusive: #d29922; --lost: #5d1f22; --won: #1b4427; } }
body { margin: 0 auto; max-width: 72rem; padding: 2rem 1rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.5rem; }
.pass { color: var(--pass); } .fail { color: var(--fail); } .inconclusive { color: var(--inconclusive); }
.soft { color: var(--soft); } .wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .35rem .8rem .35rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td.n, th.n { text-align: right; white-space: nowrap; }
article { border: 1px solid var(--line); border-radius: 8px; padding: 1rem; margin: 1rem 0; }
article > p { margin-top: 0; }
.sides { display: grid; grid-template-columns: repeat(auto-fit, minmax(18rem, 1fr)); gap: 1rem; }
.sides > div { background: var(--panel); border-radius: 6px; padding: .75rem; }
.text { white-space: pre-wrap; overflow-wrap: anywhere; }
mark { color: inherit; } .before mark { background: var(--lost); } .after mark { background: var(--won); }
"""


def page(report: Report) -> str:
    """The whole page."""
    title = f"Evaluation: {report.verdict}"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<title>{escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>Evaluation: <span class="{report.verdict}">{report.verdict}</span></h1>
{_summary(report)}
<h2>Limits</h2>
<ul>{"".join(map(_limit, report.findings)) or "<li>None could be judged.</li>"}</ul>
{_notes(report)}
<h2>Measures</h2>
{_measures(report)}
<h2>What changed most</h2>
{"".join(map(_example, report.examples)) or "<p>Nothing: all answers are equal.</p>"}
</body>
</html>
"""


def _summary(report: Report) -> str:
    rows = (
        ("Champion", _side(report.champion)),
        ("Candidate", _side(report.candidate)),
        (
            "Tasks",
            f"{report.tasks} of {escape(report.tasks_name)}, {report.compared} compared, {report.changed} answered "
            f'differently<br><span class="soft">SHA-256 {report.tasks_digest}</span>',
        ),
    )
    cells = "".join(f"<tr><th>{name}</th><td>{text}</td></tr>" for name, text in rows)
    return f'<div class="wide"><table>{cells}</table></div>'


def _side(side: Side) -> str:
    parts = [escape(f"{side.model} at {', '.join(side.urls)}")]
    parts += [f"revision {escape(name)} ({count} answers)" for name, count in side.revisions.items()]
    parts += [f'<span class="fail">{count} × {escape(error)}</span>' for error, count in side.failures.items()]
    return "<br>".join(parts)


def _limit(finding: Finding) -> str:
    return f'<li><strong class="{finding.verdict}">{finding.verdict}</strong> {escape(spell_finding(finding))}</li>'


def _notes(report: Report) -> str:
    return "".join(f'<p class="soft">{escape(note)}</p>' for note in (*spell_sizes(report), *report.notes))


def _measures(report: Report) -> str:
    head = ("Group", "Metric", "Tasks", "Champion", "Candidate", "Change", "Interval")
    cells = "".join(f"<th{_right(place)}>{name}</th>" for place, name in enumerate(head))
    rows = "".join(_row(measure_cells(measure)) for measure in report.measures)
    method = f"{METHOD}, {report.drawing.level:.0%}, {report.drawing.resamples} resamples, seed {report.drawing.seed}"
    return (
        f'<div class="wide"><table><tr>{cells}</tr>{rows}</table></div>'
        f'<p class="soft">Intervals of the change, or of the value of a metric that compares: {method}.</p>'
    )


def _row(cells: Iterable[str]) -> str:
    return "<tr>" + "".join(f"<td{_right(place)}>{escape(cell)}</td>" for place, cell in enumerate(cells)) + "</tr>"


def _right(place: int) -> str:
    return ' class="n"' if place > 1 else ""


def _example(example: Example) -> str:
    before, after = changed_words(example.champion, example.candidate)
    lost = f' <strong class="{Verdict.FAIL}">lost: {escape(", ".join(example.lost))}</strong>' if example.lost else ""
    won = f' <strong class="{Verdict.PASS}">won: {escape(", ".join(example.won))}</strong>' if example.won else ""
    right = f'<p class="soft text">Reference: {escape(example.reference)}</p>' if example.reference else ""
    group = f", {escape(example.group)}" if example.group else ""
    return f"""<article>
<p><span class="soft">{escape(example.id)}{group}, {example.likeness:.0%} alike</span>{lost}{won}</p>
<p class="text"><strong>{escape(example.question)}</strong></p>{right}
<div class="sides"><div class="before"><div class="soft">Champion</div><div class="text">{_pieces(before)}</div></div>
<div class="after"><div class="soft">Candidate</div><div class="text">{_pieces(after)}</div></div></div>
</article>
"""


def _pieces(pieces: Iterable[tuple[str, bool]]) -> str:
    return " ".join(f"<mark>{escape(text)}</mark>" if only else escape(text) for text, only in pieces)
