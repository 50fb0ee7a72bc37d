"""Inferdock: from open LLM weights to a production OpenAI-compatible service on vLLM.

The rooms and what may import what are drawn in ``docs/architecture.md``; import-linter enforces it.
"""

__version__ = "0.1.0"
__all__ = ["__version__"]
