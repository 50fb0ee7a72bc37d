{{/*
`spec` of a ScaledObject. KEDA makes a HorizontalPodAutoscaler of it, which alone owns the replicas.
(dict "given" <as inferdock.revision.objects> "name" "x" "floor" 1)

Queries count what the engines hold (running and waiting) and what waits at the gateway. Series of engines vanish with their pods.
Where the model may sleep, nothing then means 0, but only while the gateways' own series are there: if Prometheus has lost both, the
query is empty, which is an error and not 0 (ignoreNullValues), and `fallback` holds.
*/}}
{{- define "inferdock.scaling" -}}
{{- $root := .given.root -}}
{{- $m := .given.model -}}
{{- $a := $m.autoscaling -}}
{{- $least := max 0 (sub (int $a.minReplicas) (int .floor)) -}}
{{- $pods := printf `namespace="%s",inferdock_io_model="%s",inferdock_io_revision="%s"` $root.Release.Namespace $m.label .given.revision -}}
{{- $ours := printf `namespace="%s",model=%s` $root.Release.Namespace (toJson $m.name) -}}
{{- $alive := printf `0 * sum(llm_gateway_workers{namespace="%s"})` $root.Release.Namespace -}}
{{- $sleeps := and (eq $least 0) (eq (int .floor) 0) -}}
{{- $load := printf "sum(vllm:num_requests_running{%s}) + sum(vllm:num_requests_waiting{%s})" $pods $pods -}}
{{- $kv := printf "avg(vllm:kv_cache_usage_perc{%s})" $pods -}}
{{- if $sleeps -}}
{{- $load = printf "(%s) or (%s)" $load $alive -}}
{{- $kv = printf "%s or (%s)" $kv $alive -}}
{{- end -}}
{{- if gt (int .floor) 0 -}}
{{- $load = printf "clamp_min(%s - %v, 0)" $load (mulf (float64 .floor) (float64 $a.targetLoadPerReplica)) -}}
{{- end -}}
scaleTargetRef:
  apiVersion: apps/v1
  kind: Deployment
  name: {{ .name | quote }}
pollingInterval: {{ $a.pollingInterval }}
cooldownPeriod: {{ $a.cooldownPeriod }}
minReplicaCount: {{ $least }}
maxReplicaCount: {{ max 1 (sub (int $a.maxReplicas) (int .floor)) }}
fallback:
  failureThreshold: {{ $a.fallback.failureThreshold }}
  replicas: {{ default (max 1 $least) $a.fallback.replicas }}
  behavior: currentReplicasIfHigher
advanced:
  horizontalPodAutoscalerConfig:
    behavior:
      {{- toYaml $a.behavior | nindent 6 }}
triggers:
  # Requests per replica: the sum over all replicas, which the autoscaler divides by their number.
  - type: prometheus
    name: load
    metricType: AverageValue
    {{- include "inferdock.scaling.source" (dict "root" $root "query" $load "threshold" $a.targetLoadPerReplica) | nindent 4 }}
  # A mean, 0 to 1, which the autoscaler must not divide again.
  - type: prometheus
    name: kv-cache
    metricType: Value
    {{- include "inferdock.scaling.source" (dict "root" $root "query" $kv "threshold" $a.targetKvCacheUsage) | nindent 4 }}
  {{- if $sleeps }}
  # Requests that gateways hold for a model without replicas wake it.
  - type: prometheus
    name: held
    metricType: AverageValue
    {{- include "inferdock.scaling.source" (dict "root" $root "query" (printf "sum(llm_gateway_queue_waiting{%s}) or (%s)" $ours $alive) "threshold" $a.targetLoadPerReplica) | nindent 4 }}
  {{- end }}
  {{- with $a.extraTriggers }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{- define "inferdock.scaling.source" -}}
{{- $p := .root.Values.prometheus -}}
{{- with $p.authentication.mode -}}
authenticationRef:
  name: {{ include "inferdock.fullname" $.root }}-prometheus
{{ end -}}
metadata:
  serverAddress: {{ $p.serverAddress | quote }}
  query: {{ .query | quote }}
  threshold: {{ .threshold | toString | quote }}
  activationThreshold: "0"
  ignoreNullValues: "false"
  {{- with $p.authentication.mode }}
  authModes: {{ . }}
  {{- end }}
{{- end -}}
