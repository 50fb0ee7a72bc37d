"""Run by `helm test`: the gateway lives, asks for a key or lists the models that the values name."""

import json
import os
import sys
import urllib.error
import urllib.request

gateway, wanted = os.environ["GATEWAY"], set(json.loads(os.environ["MODELS"]))
with urllib.request.urlopen(f"{gateway}/health", timeout=10) as answer:
    print("health:", answer.status)
try:
    with urllib.request.urlopen(f"{gateway}/v1/models", timeout=10) as answer:
        models = {card["id"] for card in json.load(answer)["data"]}
except urllib.error.HTTPError as error:
    if error.code != 401:
        raise
    print("models: the gateway asks for a key, as it should")
    sys.exit(0)
print("models:", ", ".join(sorted(models)))
if wanted - models:
    sys.exit(f"not known to the gateway: {', '.join(sorted(wanted - models))}")
