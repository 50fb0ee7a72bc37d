"""A fleet under traffic, on paper: requests, replicas that queue and share, an autoscaler, start-up and interruptions.

Pure and deterministic for a seed; used by `inferdock simulate` and `inferdock plan`. What a replica can do comes from a
measured profile (`profile`), what the autoscaler does from the very code that runs in production (`autoscale`).
"""
