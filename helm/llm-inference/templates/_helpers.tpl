{{/* Names, labels, images: what every template uses. */}}

{{- define "inferdock.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "inferdock.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "inferdock.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What selectors use, and nothing else: selectors cannot be changed later. (dict "root" $ "component" "gateway") */}}
{{- define "inferdock.selector" -}}
app.kubernetes.io/name: {{ include "inferdock.name" .root | quote }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* Labels of an object. (dict "root" $ "component" "gateway") */}}
{{- define "inferdock.labels" -}}
{{ include "inferdock.selector" . }}
app.kubernetes.io/part-of: inferdock
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Labels of pods: none that changes with the chart's version, which would restart every engine. */}}
{{- define "inferdock.podLabels" -}}
{{ include "inferdock.selector" . }}
app.kubernetes.io/part-of: inferdock
app: {{ include "inferdock.name" .root | quote }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* `metadata` of an object of the chart, but for its name. (dict "root" $ "component" "gateway" "name" "x" "annotations" (dict) "labels" (dict)) */}}
{{- define "inferdock.metadata" -}}
name: {{ .name | quote }}
namespace: {{ .root.Release.Namespace | quote }}
labels:
  {{- include "inferdock.labels" . | nindent 2 }}
  {{- with .labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with mustMergeOverwrite (dict) .root.Values.commonAnnotations (default (dict) .annotations) }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Reference to an image. (dict "root" $ "image" .Values.gateway.image) */}}
{{- define "inferdock.image" -}}
{{- $tag := default .root.Chart.AppVersion .image.tag -}}
{{- if eq $tag "latest" -}}
{{- fail (printf "%s: the tag `latest` says nothing about what runs, and nodes that have one do not pull another. Give a version, or a digest." .image.repository) -}}
{{- end -}}
{{- printf "%s:%s" .image.repository $tag -}}{{- with .image.digest -}}@{{ . }}{{- end -}}
{{- end -}}

{{/* A value that a label can hold, as inferdock.kube.naming makes it: the text itself, else a form that fits with 8 hex digits of its SHA-256. */}}
{{- define "inferdock.labelValue" -}}
{{- if and (le (len .) 63) (regexMatch "^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$" .) -}}
{{- . -}}
{{- else -}}
{{- $stem := regexReplaceAll "[^-._A-Za-z0-9]+" . "-" | trimAll "-._" | trunc 54 -}}
{{- with $stem -}}{{ . }}-{{- end -}}{{ sha256sum . | trunc 8 }}
{{- end -}}
{{- end -}}

{{- define "inferdock.gateway.name" -}}
{{ include "inferdock.fullname" . }}-gateway
{{- end -}}

{{- define "inferdock.redis.name" -}}
{{ include "inferdock.fullname" . }}-redis
{{- end -}}

{{- define "inferdock.engine.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (printf "%s-engine" (include "inferdock.fullname" .)) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "inferdock.gateway.serviceAccount" -}}
{{- if .Values.gateway.serviceAccount.create -}}
{{- default (include "inferdock.gateway.name" .) .Values.gateway.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.gateway.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* Secret with the password of the Redis behind the response cache, "" where there is none. */}}
{{- define "inferdock.redis.secret" -}}
{{- if .Values.redis.enabled -}}
{{- default (include "inferdock.redis.name" .) .Values.redis.existingSecret -}}
{{- else if .Values.redis.external.url -}}
{{- .Values.redis.external.existingSecret -}}
{{- end -}}
{{- end -}}

{{/* Bytes of a quantity such as 12Gi, 500M or 1073741824. */}}
{{- define "inferdock.bytes" -}}
{{- $text := toString . -}}
{{- $units := dict "" 1 "k" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 -}}
{{- $unit := regexFind "[A-Za-z]*$" $text -}}
{{- if not (hasKey $units $unit) -}}
{{- fail (printf "%s is no amount of memory that this chart reads. Write it with Mi or Gi." $text) -}}
{{- end -}}
{{- mulf (float64 (trimSuffix $unit $text)) (get $units $unit) | int64 -}}
{{- end -}}

{{/* Thousandths of a processor of a quantity such as 3, "0.5" or 500m. */}}
{{- define "inferdock.millicores" -}}
{{- $text := toString . -}}
{{- if hasSuffix "m" $text -}}{{ trimSuffix "m" $text | int64 }}{{- else -}}{{ mulf (float64 $text) 1000 | int64 }}{{- end -}}
{{- end -}}

{{/* Spread of pods: what is given, else over zones and nodes where it can be. (dict "given" [...] "selector" (dict)) */}}
{{- define "inferdock.spread" -}}
{{- if .given -}}
{{- toYaml .given -}}
{{- else -}}
{{- $spread := list -}}
{{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" -}}
{{- $spread = append $spread (dict "maxSkew" 1 "topologyKey" . "whenUnsatisfiable" "ScheduleAnyway" "labelSelector" (dict "matchLabels" $.selector)) -}}
{{- end -}}
{{- toYaml $spread -}}
{{- end -}}
{{- end -}}
