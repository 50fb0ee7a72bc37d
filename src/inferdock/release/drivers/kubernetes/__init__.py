"""Releases in a Kubernetes cluster: what is seen there, what is applied, and what stands in the way."""
