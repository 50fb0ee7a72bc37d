#!/bin/bash
# The faults of the plan's step 3.3, shortened; tests/docs/test_plan_errata.py shows what is wrong with it.
kubectl set image deployment/llm vllm="$IMAGE_TAG"
kubectl rollout status deployment/llm --timeout=120s
POD=$(kubectl get pod -l app=llm -o jsonpath='{.items[0].metadata.name}')
HEALTH=$(kubectl exec "$POD" -- curl -s localhost:8000/health | jq -r '.status')
[ "$HEALTH" == "ok" ] || exit 1
