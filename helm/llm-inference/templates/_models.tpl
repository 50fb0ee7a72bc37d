{{/* One model: its values over those of `engine`, its revision, its names. */}}

{{/* The model as JSON. (dict "root" $ "key" "mistral" "given" (dict)) */}}
{{- define "inferdock.model" -}}
{{- $model := mustMergeOverwrite (deepCopy .root.Values.engine) (deepCopy (default (dict) .given)) -}}
{{- $name := default .key $model.name -}}
{{- $source := default "" $model.source -}}
{{- $version := toString (default "0.0.0" $model.version) -}}
{{- $reference := printf "%s@%s" .key $version -}}
{{- $digest := toString (default "" $model.revision) -}}
{{- $pinned := ne $digest "" -}}
{{- if not $pinned -}}
{{- $digest = list .key $source $version | toJson | sha256sum -}}
{{- end -}}
{{- $digits := $digest | trimPrefix (printf "%s-" $version) | trunc 12 -}}
{{- $slug := regexReplaceAll "[^a-z0-9]+" (lower $version) "-" | trunc 17 | trimAll "-" -}}
{{- $base := printf "%s-%s" (include "inferdock.fullname" .root) (regexReplaceAll "[^a-z0-9]+" (lower .key) "-" | trimAll "-") -}}
{{- if gt (len $base) 26 -}}
{{- $base = printf "%s-%s" ($base | trunc 19 | trimAll "-") (sha256sum (printf "%s/%s" .root.Release.Name .key) | trunc 6) -}}
{{- end -}}
{{- $replicas := .root.Values.replicaCount -}}
{{- if and (hasKey $model "replicas") (not (kindIs "invalid" $model.replicas)) -}}{{- $replicas = $model.replicas -}}{{- end -}}
{{- $grace := add $model.drain.preStopSeconds $model.drain.shutdownTimeoutSeconds $model.drain.marginSeconds -}}
{{- $more := dict "key" .key "name" $name "source" $source "version" $version "reference" $reference "revision" (printf "%s-%s" $version $digits) "digits" $digits "pinned" $pinned "slug" (printf "%s-%s" $slug $digits) "base" $base "label" (include "inferdock.labelValue" $name) "fromRegistry" (eq $source "") "replicas" $replicas "leastGrace" $grace "grace" (default $grace $model.terminationGracePeriodSeconds) -}}
{{- mustMergeOverwrite $model $more | toJson -}}
{{- end -}}

{{/* All models as a JSON list, in the order of their keys; one that is null is left out. */}}
{{- define "inferdock.models" -}}
{{- $models := list -}}
{{- range $key, $given := .Values.models -}}
{{- if not (kindIs "invalid" $given) -}}
{{- $models = append $models (include "inferdock.model" (dict "root" $ "key" $key "given" $given) | fromJson) -}}
{{- end -}}
{{- end -}}
{{- toJson $models -}}
{{- end -}}

{{/* Labels by which the pods of one revision are selected. (dict "root" $ "model" $m "revision" "x") */}}
{{- define "inferdock.revision.selector" -}}
{{ include "inferdock.selector" (dict "root" .root "component" "engine") }}
inferdock.io/model: {{ .model.label | quote }}
inferdock.io/revision: {{ .revision | quote }}
{{- end -}}

{{- define "inferdock.revision.labels" -}}
{{ include "inferdock.labels" (dict "root" .root "component" "engine") }}
inferdock.io/model: {{ .model.label | quote }}
inferdock.io/revision: {{ .revision | quote }}
{{- end -}}

{{/* inferdock.yaml of the engine. (dict "root" $ "model" $m) */}}
{{- define "inferdock.engine.config" -}}
{{- $m := .model -}}
{{- $arguments := list -}}
{{- if gt (int $m.gpu.count) 0 -}}
{{- $arguments = concat $arguments (list "--gpu-memory-utilization" (toString $m.gpuMemoryUtilization)) -}}
{{- end -}}
{{- if gt (int $m.gpu.count) 1 -}}
{{- $arguments = concat $arguments (list "--tensor-parallel-size" (toString $m.gpu.count)) -}}
{{- end -}}
{{- with $m.quantization -}}
{{- $arguments = concat $arguments (list "--quantization" .) -}}
{{- end -}}
{{- $model := dict "name" $m.name "dtype" $m.dtype -}}
{{- with $m.maxModelLen -}}{{- $_ := set $model "max_model_len" . -}}{{- end -}}
{{- $engine := dict "kind" $m.kind "max_num_seqs" $m.maxNumSeqs "tool_call_parser" $m.toolCallParser "startup_timeout_s" $m.startupTimeoutSeconds "extra_args" (concat $arguments $m.extraArgs | default list) -}}
{{- if eq (int $m.gpu.count) 0 -}}{{- $_ := set $engine "kv_cache_gib" $m.kvCacheGiB -}}{{- end -}}
{{- $config := dict "model" $model "engine" $engine "drain_timeout_s" $m.drain.shutdownTimeoutSeconds "state_dir" "/tmp/inferdock" -}}
{{- if $m.fromRegistry -}}
{{- $registry := dict "url" .root.Values.registry.url "cache_dir" "/models" -}}
{{- if hasPrefix "s3://" .root.Values.registry.url -}}
{{- $s3 := dict "table" .root.Values.registry.table -}}
{{- with .root.Values.registry.region -}}{{- $_ := set $s3 "region" . -}}{{- end -}}
{{- $_ := set $registry "s3" $s3 -}}
{{- end -}}
{{- if .root.Values.registry.trustedKeysConfigMap -}}
{{- $files := list -}}
{{- range .root.Values.registry.trustedKeys -}}{{- $files = append $files (printf "/etc/inferdock-trusted/%s" .) -}}{{- end -}}
{{- $_ := set $registry "trusted_key_files" $files -}}
{{- end -}}
{{- $_ := set $config "registry" $registry -}}
{{- end -}}
{{- mustMergeOverwrite $config $m.config | toYaml -}}
{{- end -}}
