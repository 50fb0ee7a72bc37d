#!/usr/bin/env bash
# Back to an earlier version: all traffic goes to it first, everything else follows. A door to `inferdock release rollback`.
set -euo pipefail

usage() {
  cat <<'TEXT'
Usage: scripts/rollback.sh VERSION [OPTIONS]

Gives all requests to VERSION of the model that serves, at once where it is still warm, and says how many seconds that
took. VERSION is 1.0.0, or NAME@1.0.0. No gate stands in the way; no request is lost.

OPTIONS go to `inferdock release rollback`: --reason TEXT, --dry-run, --port, --state-dir,
--target kubernetes --namespace NS --model NAME --kube-context CONTEXT, ...

Environment, where options do not say it:
  MODEL_NAME    the model's name in the registry and, in a cluster, for clients
  NAMESPACE     a namespace: the model in that cluster (kubectl's context) is meant, not this machine's platform

Exit codes are those of `inferdock`: 0 done, 7 nothing answers, 8 it could not go all the way, 9 no such version,
10 another release is under way.

  scripts/rollback.sh 1.0.0 --reason "wrong prices in answers"
  NAMESPACE=production MODEL_NAME=mistral-7b scripts/rollback.sh 1.0.0
TEXT
}

case ${1:-} in
  -h | --help) usage && exit 0 ;;
  "" | -*) usage >&2 && exit 2 ;;
esac

version=$1 && shift
reference=$version
case $version in
  *@*) model=${MODEL_NAME:-${version%@*}} ;;
  *) model=${MODEL_NAME:-} && reference=${model:+$model@}$version ;;
esac
place=()
if [[ -n ${NAMESPACE:-} ]]; then
  [[ -n $model ]] || { echo "error: which model in $NAMESPACE? Set MODEL_NAME." >&2 && exit 2; }
  place=(--target kubernetes --namespace "$NAMESPACE" --model "$model")
fi

inferdock=$(dirname "${BASH_SOURCE[0]}")/../.venv/bin/inferdock
[[ -x $inferdock ]] || inferdock=$(command -v inferdock) || {
  echo "error: there is no inferdock here. Run make setup, or install it." >&2
  exit 2
}
exec "$inferdock" release rollback "$reference" "${place[@]}" "$@"
