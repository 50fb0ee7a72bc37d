"""Is a candidate as good as the champion? Asks both the same questions and says pass, fail or inconclusive.

`evaluate.evaluate` is what the command ``inferdock eval`` and the release gate call. Scoring, statistics and limits
are pure; only `client` talks to engines, and only `texts` needs the packages of the extra ``eval``.
"""
