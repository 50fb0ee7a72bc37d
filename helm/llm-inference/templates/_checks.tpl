{{/* Combinations that cannot work, each with a sentence that says why and what to do. Rendered by revisions.yaml, before anything else. */}}

{{- define "inferdock.checks" -}}
{{- include "inferdock.checks.chart" . -}}
{{- if not (include "inferdock.models" . | fromJsonArray) -}}
{{- fail "There is no model to serve: name at least one in `models`." -}}
{{- end -}}
{{- $bases := dict -}}
{{- $labels := dict -}}
{{- range include "inferdock.models" . | fromJsonArray -}}
{{- include "inferdock.checks.names" (dict "root" $ "model" . "bases" $bases "labels" $labels) -}}
{{- include "inferdock.checks.revision" (dict "root" $ "model" .) -}}
{{- include "inferdock.checks.drain" . -}}
{{- include "inferdock.checks.replicas" (dict "root" $ "model" .) -}}
{{- include "inferdock.checks.cards" . -}}
{{- include "inferdock.checks.nodes" (dict "root" $ "model" .) -}}
{{- end -}}
{{- end -}}

{{- define "inferdock.checks.chart" -}}
{{- if not (toYaml .Values) -}}
{{- fail "A text among the values holds characters that YAML cannot hold: what it is for would silently be left out." -}}
{{- end -}}
{{- $d := .Values.gateway.drain -}}
{{- $sum := add $d.preStopSeconds $d.timeoutSeconds $d.marginSeconds -}}
{{- if lt (include "inferdock.gateway.grace" . | int) (int $sum) -}}
{{- fail (printf "gateway.terminationGracePeriodSeconds is %v, but preStop (%v) + timeout (%v) + margin (%v) are %v: open requests would be cut. Raise it, or leave it out and the chart computes it." .Values.gateway.terminationGracePeriodSeconds $d.preStopSeconds $d.timeoutSeconds $d.marginSeconds $sum) -}}
{{- end -}}
{{- $open := or .Values.ingress.enabled .Values.route.enabled (ne .Values.service.type "ClusterIP") -}}
{{- $keys := .Values.gateway.keys -}}
{{- if and $open $keys.allowUnauthenticated (not $keys.existingSecret) -}}
{{- fail "The gateway would serve anybody outside of the cluster. Give gateway.keys.existingSecret (make keys with `inferdock keys create`), or set gateway.keys.allowUnauthenticated: false and gateway.config.keys." -}}
{{- end -}}
{{- if and (not $keys.existingSecret) (not $keys.allowUnauthenticated) (not (dig "keys" (dict) .Values.gateway.config)) -}}
{{- fail "Nobody could use the gateway, and it would not start: give gateway.keys.existingSecret, or allow everybody who reaches it with gateway.keys.allowUnauthenticated: true." -}}
{{- end -}}
{{- if and .Values.route.enabled (not .Values.route.parentRefs) -}}
{{- fail "route.enabled needs route.parentRefs: the Gateways that the HTTPRoute belongs to, as [{name: ..., namespace: ...}]." -}}
{{- end -}}
{{- $m := .Values.metrics -}}
{{- $ways := 0 -}}
{{- range list $m.annotations $m.serviceMonitor.enabled $m.podMonitor.enabled -}}{{- if . -}}{{- $ways = add1 $ways -}}{{- end -}}{{- end -}}
{{- if gt (int $ways) 1 -}}
{{- fail "Choose one of metrics.annotations, metrics.serviceMonitor and metrics.podMonitor: with two of them each pod is scraped twice, and every token counts twice." -}}
{{- end -}}
{{- if and .Values.redis.enabled .Values.redis.external.url -}}
{{- fail "redis.enabled and redis.external.url exclude each other: run one here, or use the one that is there." -}}
{{- end -}}
{{- if and (or .Values.redis.enabled .Values.redis.external.url) (not .Values.cache.enabled) -}}
{{- fail "A Redis is wanted and the response cache that would use it is off: set cache.enabled: true, or leave redis out." -}}
{{- end -}}
{{- if and .Values.gateway.autoscaling.enabled (gt (int .Values.gateway.autoscaling.minReplicas) (int .Values.gateway.autoscaling.maxReplicas)) -}}
{{- fail "gateway.autoscaling.minReplicas is above maxReplicas." -}}
{{- end -}}
{{- $least := ternary .Values.gateway.autoscaling.minReplicas .Values.gateway.replicaCount .Values.gateway.autoscaling.enabled -}}
{{- include "inferdock.checks.pdb" (dict "what" "gateway.pdb" "pdb" .Values.gateway.pdb "replicas" $least) -}}
{{- end -}}

{{- define "inferdock.checks.names" -}}
{{- $m := .model -}}
{{- if hasKey .bases $m.base -}}
{{- fail (printf "models.%s and models.%s would have the same names in Kubernetes: give one of them another key." (get .bases $m.base) $m.key) -}}
{{- end -}}
{{- $_ := set .bases $m.base $m.key -}}
{{- if hasKey .labels $m.label -}}
{{- fail (printf "models.%s and models.%s are both called %s by clients: give one of them another `name`." (get .labels $m.label) $m.key $m.name) -}}
{{- end -}}
{{- $_ := set .labels $m.label $m.key -}}
{{- end -}}

{{- define "inferdock.checks.revision" -}}
{{- $m := .model -}}
{{- if $m.fromRegistry -}}
{{- if not .root.Values.registry.url -}}
{{- fail (printf "models.%s comes from the registry, and registry.url is empty. Give the registry's address, or models.%s.source (a Hugging Face name or a folder of the image)." $m.key $m.key) -}}
{{- end -}}
{{- if or (not $m.pinned) (eq $m.version "0.0.0") -}}
{{- fail (printf "models.%s comes from the registry: give its `version` and `revision` (`inferdock model show %s -o json` has both; `inferdock install` fills them in)." $m.key $m.reference) -}}
{{- end -}}
{{- end -}}
{{- if not (regexMatch "^[0-9a-f]{12}$" $m.digits) -}}
{{- fail (printf "models.%s.revision must be the version's digest: 12 to 64 hex digits, or %s- and 12 of them." $m.key $m.version) -}}
{{- end -}}
{{- if eq $m.quantization "awq" -}}
{{- fail (printf "models.%s.quantization: `awq` forces vLLM's slow kernel, about ten times slower than `awq_marlin`. Write `awq_marlin`, or leave it empty and vLLM chooses." $m.key) -}}
{{- end -}}
{{- end -}}

{{- define "inferdock.checks.drain" -}}
{{- if lt (int .grace) (int .leastGrace) -}}
{{- fail (printf "models.%s: terminationGracePeriodSeconds is %v, but preStop (%v) + shutdown timeout (%v) + margin (%v) are %v: the engine would be killed while it drains. Raise it, or leave it out and the chart computes it." .key .grace .drain.preStopSeconds .drain.shutdownTimeoutSeconds .drain.marginSeconds .leastGrace) -}}
{{- end -}}
{{- if and .spot.enabled (gt (int .grace) 100) -}}
{{- fail (printf "models.%s: terminationGracePeriodSeconds is %v, but a spot node is gone 120 s after its notice, of which the notice itself takes some: at most 100. Lower drain.shutdownTimeoutSeconds; streams that are left go on at another replica." .key .grace) -}}
{{- end -}}
{{- end -}}

{{- define "inferdock.checks.replicas" -}}
{{- $m := .model -}}
{{- $a := $m.autoscaling -}}
{{- $given := get .root.Values.models $m.key -}}
{{- if $a.enabled -}}
{{- if and (hasKey $given "replicas") (not (kindIs "invalid" $given.replicas)) -}}
{{- fail (printf "models.%s.replicas and autoscaling.enabled exclude each other: each upgrade would undo what the autoscaler did. Leave replicas out and use autoscaling.minReplicas." $m.key) -}}
{{- end -}}
{{- if gt (int $a.minReplicas) (int $a.maxReplicas) -}}
{{- fail (printf "models.%s: autoscaling.minReplicas (%v) is above maxReplicas (%v)." $m.key $a.minReplicas $a.maxReplicas) -}}
{{- end -}}
{{- $host := get (urlParse .root.Values.prometheus.serverAddress) "hostname" -}}
{{- if not (contains "." $host) -}}
{{- fail (printf "prometheus.serverAddress is %s, which KEDA would look for in its own namespace. Write the whole name, such as http://prometheus.monitoring.svc.cluster.local:9090." .root.Values.prometheus.serverAddress) -}}
{{- end -}}
{{- end -}}
{{- $floor := int $m.spot.onDemandFloor -}}
{{- if and $m.spot.enabled (gt $floor 0) -}}
{{- if not $a.enabled -}}
{{- fail (printf "models.%s: spot.onDemandFloor is a Deployment beside the autoscaled one: set autoscaling.enabled, or spot.onDemandFloor: 0." $m.key) -}}
{{- end -}}
{{- if ge $floor (int $a.maxReplicas) -}}
{{- fail (printf "models.%s: spot.onDemandFloor (%v) leaves nothing of autoscaling.maxReplicas (%v) for spot nodes." $m.key $floor $a.maxReplicas) -}}
{{- end -}}
{{- end -}}
{{- include "inferdock.checks.pdb" (dict "what" (printf "models.%s.pdb" $m.key) "pdb" $m.pdb "replicas" (ternary $a.minReplicas $m.replicas $a.enabled)) -}}
{{- end -}}

{{/* A budget that never lets a pod go makes every drain of a node hang. (dict "what" "..." "pdb" (dict) "replicas" 1) */}}
{{- define "inferdock.checks.pdb" -}}
{{- if .pdb.enabled -}}
{{- $least := .pdb.minAvailable -}}
{{- $most := .pdb.maxUnavailable -}}
{{- if kindIs "invalid" $least -}}
{{- if or (kindIs "invalid" $most) (has (toString $most) (list "0" "0%")) -}}
{{- fail (printf "%s lets no pod go: nodes could not be drained. Set maxUnavailable to 1 or more, or %s.enabled: false." .what .what) -}}
{{- end -}}
{{- else if or (eq (toString $least) "100%") (and (not (kindIs "string" $least)) (ge (int $least) (int (max 1 .replicas)))) -}}
{{- fail (printf "%s.minAvailable is %v of %v replicas: no pod could ever be evicted, and drains of nodes would hang. Use maxUnavailable: 1." .what $least .replicas) -}}
{{- end -}}
{{- end -}}
{{- end -}}
