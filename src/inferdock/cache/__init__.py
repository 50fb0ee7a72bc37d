"""The response cache: stored answers for requests that ask the same thing of the same model for the same tenant.

The gateway asks it (``gateway/cached.py``); ``app`` puts it together, and only where it is switched on: the embedding
runtime and the Redis client are loaded by name then. Flow and reasons: docs/decisions/0014-response-cache.md.
"""
