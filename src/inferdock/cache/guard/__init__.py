"""The guard of the semantic tier: whether the answer to one prompt may be served for another.

Called with the best candidates of a partition. Pure: text and score in, verdict out. English has rules; prompts in
other languages must have the same words. docs/decisions/0016-guard.md has the figures.
"""

from inferdock.cache.guard.form import surface_form
from inferdock.cache.guard.guard import GREY, Guard
from inferdock.cache.guard.verdict import Reason, Verdict

__all__ = ["GREY", "Guard", "Reason", "Verdict", "surface_form"]
