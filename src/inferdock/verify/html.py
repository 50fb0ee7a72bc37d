"""The report as one HTML page without anything from outside. Pure.

Sentences hold what a target said, so all text is escaped, and the page allows no script.
"""

from __future__ import annotations

from html import escape
from itertools import groupby
from typing import Final

from inferdock.verify.check import Outcome, Result
from inferdock.verify.report import Report, counted, spell_figures, step

_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"
_STYLE: Final = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #59636e; --paper: #fff; --line: #d8dee4; --panel: #f6f8fa;
  --pass: #1a7f37; --fail: #c1121f; --needs: #59636e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --soft: #9198a1; --paper: #0d1117; --line: #30363d;
  --panel: #161b22; --pass: #3fb950; --fail: #ff7b72; --needs: #9198a1; } }
body { margin: 0 auto; max-width: 60rem; padding: 1.5rem 1rem 4rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin-bottom: 0; } h2 { font-size: 1.05rem; margin: 2rem 0 .25rem; }
.pass { color: var(--pass); } .fail { color: var(--fail); } .needs { color: var(--needs); }
.soft { color: var(--soft); } p { margin: .1rem 0; overflow-wrap: anywhere; }
.counts { display: flex; flex-wrap: wrap; gap: .25rem 2rem; font-size: 1.1rem; margin: .5rem 0 1rem; }
.counts b { font-size: 1.6rem; font-variant-numeric: tabular-nums; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; margin: 0; }
dd { margin: 0; overflow-wrap: anywhere; }
article { display: grid; grid-template-columns: 4rem 1fr; gap: 0 .5rem; padding: .6rem 0;
  border-top: 1px solid var(--line); }
article > strong { font-size: .95rem; }
code { font: .85em ui-monospace, monospace; background: var(--panel); padding: .1rem .3rem; border-radius: 4px;
  overflow-wrap: anywhere; }
.small { font-size: .875rem; }
@media (max-width: 32rem) { article { grid-template-columns: 1fr; } dl { grid-template-columns: 1fr; }
  dt { font-size: .875rem; } dd { margin-bottom: .3rem; } }
"""
_WORDS: Final = {Outcome.PASS: "passed", Outcome.FAIL: "failed", Outcome.NEEDS: "not run here"}
_TITLES: Final = {"criteria": "Success criteria"}


def page(report: Report) -> str:
    """The whole page."""
    title = f"inferdock verify: {counted(report)}"
    groups = groupby(report.results, key=lambda result: step(result.id))
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
<main>
<h1>inferdock verify</h1>
{_counts(report)}
{_facts(report)}
{"".join(f"<h2>{_title(name)}</h2>{''.join(map(_check, results))}" for name, results in groups)}
</main>
</body>
</html>
"""


def _title(name: str) -> str:
    return escape(_TITLES.get(name, f"Step {name}"))


def _counts(report: Report) -> str:
    counts = report.counts()
    parts = (f'<span class="{o}"><b>{counts[o]}</b> {_WORDS[o]}</span>' for o in Outcome)
    return f'<div class="counts">{"".join(parts)}</div>'


def _facts(report: Report) -> str:
    rows = {"target": report.target, **report.facts, "began": report.at, "took": f"{report.seconds:.0f} s"}
    cells = (f'<dt class="soft">{escape(name)}</dt><dd>{escape(text)}</dd>' for name, text in rows.items())
    return f"<dl>{''.join(cells)}</dl>"


def _check(result: Result) -> str:
    seen = result.evidence
    lines = [f"<p><strong>{escape(result.line)}</strong></p>", f"<p>{escape(seen.sentence)}</p>"]
    if seen.figures:
        lines.append(f'<p class="soft small">{escape(spell_figures(seen.figures))}</p>')
    if seen.command:
        lines.append(f"<p><code>{escape(seen.command)}</code></p>")
    lines.append(f'<p class="soft small">{escape(result.id)}, {result.seconds:.1f} s</p>')
    verdict = f'<strong class="{seen.outcome}">{seen.outcome}</strong>'
    return f"<article>{verdict}<div>{''.join(lines)}</div></article>"
