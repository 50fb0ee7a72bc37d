"""The only room that talks to a cluster: a small client of the Kubernetes API, and endpoints found through it.

``app`` starts an :class:`~inferdock.kube.source.EndpointSliceSource` and hands what it finds to the gateway.
"""
