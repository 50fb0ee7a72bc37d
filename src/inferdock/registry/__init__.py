"""The model registry: immutable versions, their histories, and the bytes behind them."""
