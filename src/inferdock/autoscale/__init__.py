"""How many replicas there should be: the algorithm of Kubernetes' HorizontalPodAutoscaler with KEDA's way to and from
zero, as pure functions with the time passed in. Used by `inferdock up`, and by `inferdock simulate`."""
