{{/*
The objects of one revision of a model, as a YAML list. The chart renders its first revision from this, and the template ConfigMap that
releases make further ones of, so both are equal.
(dict "root" $ "model" $m "revision" "1.0.0-abc" "reference" "m@1.0.0" "slug" "1-0-0-abc")
*/}}
{{- define "inferdock.revision.objects" -}}
{{- $values := .root.Values -}}
{{- $m := .model -}}
{{- $name := printf "%s-%s" $m.base .slug -}}
{{- $selector := include "inferdock.revision.selector" . | fromYaml -}}
{{- $floor := and $m.spot.enabled (gt (int $m.spot.onDemandFloor) 0) -}}
{{- $places := ternary (list "any" "on-demand") (list "any") $floor -}}
{{- range $place := $places }}
- apiVersion: apps/v1
  kind: Deployment
  metadata:
    {{- include "inferdock.revision.metadata" (dict "given" $ "name" (ternary (printf "%s-floor" $name) $name (eq $place "on-demand")) "annotations" (dict "inferdock.io/replicas" (toString (ternary $m.spot.onDemandFloor $m.replicas (eq $place "on-demand"))))) | nindent 4 }}
  spec:
    # No `replicas`: they belong to the autoscaler, or to whoever releases.
    revisionHistoryLimit: 3
    progressDeadlineSeconds: {{ add $m.startupTimeoutSeconds 300 }}
    selector:
      matchLabels:
        {{- toYaml $selector | nindent 8 }}
        inferdock.io/capacity: {{ $place }}
    strategy:
      {{- include "inferdock.engine.strategy" $m | nindent 6 }}
    template:
      metadata:
        labels:
          {{- include "inferdock.podLabels" (dict "root" $.root "component" "engine") | nindent 10 }}
          inferdock.io/model: {{ $m.label | quote }}
          inferdock.io/revision: {{ $.revision | quote }}
          inferdock.io/capacity: {{ $place }}
          {{- with $m.podLabels }}
          {{- toYaml . | nindent 10 }}
          {{- end }}
        annotations:
          inferdock.io/reference: {{ $.reference | quote }}
          checksum/config: {{ include "inferdock.engine.config" (dict "root" $.root "model" $m) | sha256sum }}
          {{- if $values.metrics.annotations }}
          prometheus.io/scrape: "true"
          prometheus.io/port: "8000"
          prometheus.io/path: /metrics
          {{- end }}
          {{- with $m.podAnnotations }}
          {{- toYaml . | nindent 10 }}
          {{- end }}
      spec:
        {{- include "inferdock.engine.pod" (dict "given" $ "name" $name "place" $place "selector" $selector) | nindent 8 }}
{{- end }}
- apiVersion: v1
  kind: Service
  metadata:
    {{- include "inferdock.revision.metadata" (dict "given" $ "name" $name) | nindent 4 }}
  spec:
    clusterIP: None
    selector:
      {{- toYaml $selector | nindent 6 }}
    ports:
      - name: http
        port: 8000
        targetPort: http
        protocol: TCP
- apiVersion: v1
  kind: ConfigMap
  metadata:
    {{- include "inferdock.revision.metadata" (dict "given" $ "name" $name) | nindent 4 }}
  data:
    inferdock.yaml: |
      {{- include "inferdock.engine.config" (dict "root" $.root "model" $m) | nindent 6 }}
{{- if $m.pdb.enabled }}
- apiVersion: policy/v1
  kind: PodDisruptionBudget
  metadata:
    {{- include "inferdock.revision.metadata" (dict "given" $ "name" $name) | nindent 4 }}
  spec:
    {{- include "inferdock.pdb" $m.pdb | nindent 4 }}
    unhealthyPodEvictionPolicy: AlwaysAllow
    selector:
      matchLabels:
        {{- toYaml $selector | nindent 8 }}
{{- end }}
{{- if $m.autoscaling.enabled }}
- apiVersion: keda.sh/v1alpha1
  kind: ScaledObject
  metadata:
    {{- include "inferdock.revision.metadata" (dict "given" $ "name" $name) | nindent 4 }}
  spec:
    {{- include "inferdock.scaling" (dict "given" $ "name" $name "floor" (ternary $m.spot.onDemandFloor 0 $floor)) | nindent 4 }}
{{- end }}
{{- end -}}

{{- define "inferdock.revision.metadata" -}}
{{- $given := .given -}}
name: {{ .name | quote }}
namespace: {{ $given.root.Release.Namespace | quote }}
labels:
  {{- include "inferdock.revision.labels" $given | nindent 2 }}
annotations:
  inferdock.io/reference: {{ $given.reference | quote }}
  {{- with mustMergeOverwrite (dict) $given.root.Values.commonAnnotations (default (dict) .annotations) }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{- define "inferdock.pdb" -}}
{{- if not (kindIs "invalid" .minAvailable) -}}
minAvailable: {{ .minAvailable }}
{{- else -}}
maxUnavailable: {{ .maxUnavailable }}
{{- end -}}
{{- end -}}

{{/* Without a card to spare a new pod would wait for ever: one stops first. */}}
{{- define "inferdock.engine.strategy" -}}
{{- if .strategy -}}
{{- toYaml .strategy -}}
{{- else if or .gpu.spare (eq (int .gpu.count) 0) -}}
type: RollingUpdate
rollingUpdate: {maxSurge: 1, maxUnavailable: 0}
{{- else -}}
type: RollingUpdate
rollingUpdate: {maxSurge: 0, maxUnavailable: 1}
{{- end -}}
{{- end -}}

{{/*
Replicas of a Deployment that no autoscaler owns. In the cluster a release may have changed them since, to 0 too: then they stay, unless the
number that is wanted here is another than at the last time. (dict "root" $ "object" <Deployment>)
*/}}
{{- define "inferdock.revision.replicas" -}}
{{- $wanted := get .object.metadata.annotations "inferdock.io/replicas" -}}
{{- $live := lookup "apps/v1" "Deployment" .root.Release.Namespace .object.metadata.name -}}
{{- $same := eq $wanted (dig "metadata" "annotations" "inferdock.io/replicas" "" $live) -}}
{{- if and $live $same -}}{{ dig "spec" "replicas" $wanted $live }}{{- else -}}{{ $wanted }}{{- end -}}
{{- end -}}
