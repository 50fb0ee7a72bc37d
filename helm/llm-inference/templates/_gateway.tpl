{{/* inferdock.yaml of the gateway. */}}
{{- define "inferdock.gateway.config" -}}
{{- $g := .Values.gateway -}}
{{- $names := dict -}}
{{- range include "inferdock.models" . | fromJsonArray -}}
{{- if ne .label .name -}}{{- $_ := set $names .label .name -}}{{- end -}}
{{- end -}}
{{- $selector := printf "app.kubernetes.io/instance=%s,inferdock.io/model" .Release.Name -}}
{{- $kubernetes := dict "enabled" true "namespace" .Release.Namespace "label_selector" $selector "port_name" "http" "model_names" $names "traffic_config_map" .Values.releases.trafficConfigMap -}}
{{- $gateway := dict "host" "0.0.0.0" "port" 8080 "workers" $g.workers "replica_drain_timeout_s" (include "inferdock.gateway.patience" . | int) "kubernetes" $kubernetes -}}
{{- with include "inferdock.gateway.hold" . -}}{{- $_ := set $gateway "hold_timeout_s" (int .) -}}{{- end -}}
{{- $keys := dict -}}
{{- if $g.keys.existingSecret -}}
{{- $keys = dict "check" "always" "file" "/etc/inferdock-keys/keys.jsonl" -}}
{{- else if $g.keys.allowUnauthenticated -}}
{{- $keys = dict "allow_unauthenticated" true -}}
{{- end -}}
{{- $config := dict "gateway" $gateway "keys" $keys "drain_timeout_s" $g.drain.timeoutSeconds "state_dir" "/tmp/inferdock" -}}
{{- if .Values.cache.enabled -}}
{{- $cache := dict "enabled" true "semantic" .Values.cache.semantic -}}
{{- $url := "" -}}
{{- if .Values.redis.enabled -}}
{{- $url = printf "redis://%s.%s.svc:6379/0" (include "inferdock.redis.name" .) .Release.Namespace -}}
{{- else -}}
{{- $url = .Values.redis.external.url -}}
{{- end -}}
{{- with $url -}}
{{- $redis := dict "url" . -}}
{{- if include "inferdock.redis.secret" $ -}}{{- $_ := set $redis "password_file" "/etc/inferdock-redis/password" -}}{{- end -}}
{{- $_ := set $cache "redis" $redis -}}
{{- end -}}
{{- $_ := set $config "cache" $cache -}}
{{- end -}}
{{- mustMergeOverwrite $config $g.config | toYaml -}}
{{- end -}}

{{/* Seconds that requests get on a replica that goes: a little less than the least that an engine gives them, so that what is left can go on elsewhere. */}}
{{- define "inferdock.gateway.patience" -}}
{{- $least := 3600 -}}
{{- range include "inferdock.models" . | fromJsonArray -}}
{{- $least = min $least (int (sub .drain.shutdownTimeoutSeconds 5)) -}}
{{- end -}}
{{- max 1 $least -}}
{{- end -}}

{{/* Seconds that requests wait for a model that sleeps: as long as it may take to wake. "" where none sleeps. */}}
{{- define "inferdock.gateway.hold" -}}
{{- $longest := 0 -}}
{{- range include "inferdock.models" . | fromJsonArray -}}
{{- if and .autoscaling.enabled (eq (int .autoscaling.minReplicas) 0) -}}{{- $longest = max $longest (int .startupTimeoutSeconds) -}}{{- end -}}
{{- end -}}
{{- with $longest -}}{{ . }}{{- end -}}
{{- end -}}

{{- define "inferdock.gateway.grace" -}}
{{- $d := .Values.gateway.drain -}}
{{- default (add $d.preStopSeconds $d.timeoutSeconds $d.marginSeconds) .Values.gateway.terminationGracePeriodSeconds -}}
{{- end -}}

{{- define "inferdock.gateway.image" -}}
{{- $image := deepCopy .Values.gateway.image -}}
{{- if .Values.cache.enabled -}}{{- $_ := set $image "repository" $image.cacheRepository -}}{{- end -}}
{{- include "inferdock.image" (dict "root" . "image" $image) -}}
{{- end -}}
