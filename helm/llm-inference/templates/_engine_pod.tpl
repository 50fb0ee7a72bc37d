{{/* The pod of an engine. (dict "given" <as inferdock.revision.objects> "name" "x" "place" "any" "selector" (dict)) */}}
{{- define "inferdock.engine.pod" -}}
{{- $root := .given.root -}}
{{- $m := .given.model -}}
serviceAccountName: {{ include "inferdock.engine.serviceAccount" $root | quote }}
automountServiceAccountToken: false
enableServiceLinks: false
terminationGracePeriodSeconds: {{ $m.grace }}
{{- with $root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $m.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with $m.runtimeClassName }}
runtimeClassName: {{ . | quote }}
{{- end }}
securityContext:
  {{- toYaml $m.podSecurityContext | nindent 2 }}
{{- with $m.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with include "inferdock.engine.affinity" (dict "model" $m "place" .place) | fromYaml }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with include "inferdock.engine.tolerations" (dict "model" $m "place" .place) | fromYamlArray }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
topologySpreadConstraints:
  {{- include "inferdock.spread" (dict "given" $m.topologySpreadConstraints "selector" .selector) | nindent 2 }}
{{- $prepare := and (eq $m.modelCache.kind "hostPath") $m.modelCache.prepare -}}
{{- if or $prepare $m.fromRegistry $m.initContainers }}
initContainers:
  {{- if $prepare }}
  # The kubelet makes the folder as root's.
  - name: prepare
    image: {{ include "inferdock.image" (dict "root" $root "image" $m.image) | quote }}
    imagePullPolicy: {{ $m.image.pullPolicy }}
    command: [chown, {{ printf "%v:%v" ($m.podSecurityContext.runAsUser | int64) ($m.podSecurityContext.runAsGroup | int64) | quote }}, /models]
    securityContext:
      runAsNonRoot: false
      runAsUser: 0
      runAsGroup: 0
      allowPrivilegeEscalation: false
      readOnlyRootFilesystem: true
      capabilities: {drop: [ALL], add: [CHOWN]}
    resources:
      requests: {cpu: 10m, memory: 16Mi}
      limits: {memory: 64Mi}
    volumeMounts:
      - {name: models, mountPath: /models}
  {{- end }}
  {{- if $m.fromRegistry }}
  # Fetches the version and verifies every byte; the engine's entry verifies again before anything is loaded.
  - name: pull
    {{- include "inferdock.engine.container" . | nindent 4 }}
    command: [inferdock, model, pull, {{ .given.reference | quote }}]
    resources:
      requests: {cpu: 500m, memory: 512Mi}
      limits: {memory: 2Gi}
  {{- end }}
  {{- with $m.initContainers }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
containers:
  - name: engine
    {{- include "inferdock.engine.container" . | nindent 4 }}
    command: [inferdock, engine, --model, {{ ternary .given.reference $m.source $m.fromRegistry | quote }}, --host, "0.0.0.0", --port, "8000"]
    {{- if and $m.fromRegistry (not $root.Values.registry.trustedKeysConfigMap) }}
    # What the init container fetched, held to the revision; the registry is not asked again. (With trusted keys it is, for the signature.)
    args: [--offline, --revision, {{ .given.revision | quote }}]
    {{- end }}
    ports:
      - name: http
        containerPort: 8000
        protocol: TCP
    resources:
      {{- include "inferdock.engine.resources" $m | nindent 6 }}
    startupProbe:
      {{- mustMergeOverwrite (dict "httpGet" (dict "path" "/health" "port" "http") "periodSeconds" 5 "timeoutSeconds" 5 "failureThreshold" (div (add $m.startupTimeoutSeconds 4) 5)) $m.startupProbe | toYaml | nindent 6 }}
    readinessProbe:
      {{- mustMergeOverwrite (dict "httpGet" (dict "path" "/health" "port" "http") "periodSeconds" 3 "timeoutSeconds" 5 "failureThreshold" 3) $m.readinessProbe | toYaml | nindent 6 }}
    livenessProbe:
      {{- mustMergeOverwrite (dict "httpGet" (dict "path" "/health" "port" "http") "periodSeconds" 15 "timeoutSeconds" 10 "failureThreshold" 10) $m.livenessProbe | toYaml | nindent 6 }}
    lifecycle:
      preStop:
        # Gateways take the pod out of use when its endpoint is marked as terminating; only then SIGTERM comes, and the engine finishes what it has.
        sleep: {seconds: {{ $m.drain.preStopSeconds }}}
  {{- with $m.extraContainers }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
volumes:
  - name: config
    configMap: {name: {{ .name | quote }}}
  - name: tmp
    emptyDir: {sizeLimit: {{ $m.tmpSize | quote }}}
  - name: shm
    emptyDir: {medium: Memory, sizeLimit: {{ $m.shmSize | quote }}}
  - name: models
    {{- if eq $m.modelCache.kind "hostPath" }}
    hostPath: {path: {{ $m.modelCache.hostPath | quote }}, type: DirectoryOrCreate}
    {{- else if eq $m.modelCache.kind "existingClaim" }}
    persistentVolumeClaim: {claimName: {{ required "engine.modelCache.kind is existingClaim: name the claim in engine.modelCache.existingClaim." $m.modelCache.existingClaim | quote }}}
    {{- else }}
    emptyDir: {sizeLimit: {{ $m.modelCache.size | quote }}}
    {{- end }}
  {{- if and $m.fromRegistry $root.Values.registry.trustedKeysConfigMap }}
  - name: trusted
    configMap: {name: {{ $root.Values.registry.trustedKeysConfigMap | quote }}}
  {{- end }}
  {{- with $m.extraVolumes }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{/* What the engine and the pull have in common. */}}
{{- define "inferdock.engine.container" -}}
{{- $root := .given.root -}}
{{- $m := .given.model -}}
image: {{ include "inferdock.image" (dict "root" $root "image" $m.image) | quote }}
imagePullPolicy: {{ $m.image.pullPolicy }}
securityContext:
  {{- toYaml $m.securityContext | nindent 2 }}
env:
  - {name: INFERDOCK_CONFIG, value: /etc/inferdock/inferdock.yaml}
  # The root is read-only: everything that is written goes to /tmp, weights to /models.
  - {name: HOME, value: /tmp}
  - {name: XDG_CACHE_HOME, value: /tmp/.cache}
  - {name: VLLM_CACHE_ROOT, value: /tmp/.cache/vllm}
  - {name: HF_HOME, value: /models/huggingface}
  {{- if eq (int $m.gpu.count) 0 }}
  - {name: OMP_WAIT_POLICY, value: PASSIVE}
  {{- end }}
  {{- if $root.Values.hf_token }}
  - name: HF_TOKEN
    valueFrom:
      secretKeyRef:
        {{- if kindIs "map" $root.Values.hf_token }}
        name: {{ $root.Values.hf_token.secretName | quote }}
        key: {{ $root.Values.hf_token.secretKey | quote }}
        {{- else }}
        name: {{ include "inferdock.fullname" $root }}-hf
        key: token
        {{- end }}
  {{- end }}
  {{- with $m.env }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- $from := $m.envFrom -}}
{{- if and $m.fromRegistry $root.Values.registry.existingSecret -}}
{{- $from = append $from (dict "secretRef" (dict "name" $root.Values.registry.existingSecret)) -}}
{{- end -}}
{{- with $from }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
volumeMounts:
  - {name: config, mountPath: /etc/inferdock, readOnly: true}
  - {name: tmp, mountPath: /tmp}
  - {name: shm, mountPath: /dev/shm}
  - {name: models, mountPath: /models}
  {{- if and $m.fromRegistry $root.Values.registry.trustedKeysConfigMap }}
  - {name: trusted, mountPath: /etc/inferdock-trusted, readOnly: true}
  {{- end }}
  {{- with $m.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{- define "inferdock.engine.resources" -}}
{{- $resources := deepCopy .resources -}}
{{- if gt (int .gpu.count) 0 -}}
{{- $cards := dict .gpu.resource (int .gpu.count) -}}
{{- $_ := set $resources "limits" (mustMergeOverwrite (default (dict) $resources.limits) $cards) -}}
{{- $_ := set $resources "requests" (mustMergeOverwrite (default (dict) $resources.requests) $cards) -}}
{{- end -}}
{{- toYaml $resources -}}
{{- end -}}

{{/* (dict "model" $m "place" "any") */}}
{{- define "inferdock.engine.affinity" -}}
{{- $m := .model -}}
{{- $affinity := deepCopy $m.affinity -}}
{{- $required := list -}}
{{- with $m.instanceTypes -}}
{{- $required = append $required (dict "key" "node.kubernetes.io/instance-type" "operator" "In" "values" .) -}}
{{- end -}}
{{- if eq .place "on-demand" -}}
{{- $required = append $required (dict "key" $m.spot.nodeLabel.key "operator" "In" "values" (list $m.spot.nodeLabel.onDemand)) -}}
{{- end -}}
{{- $node := default (dict) $affinity.nodeAffinity -}}
{{- if $required -}}
{{- $given := dig "requiredDuringSchedulingIgnoredDuringExecution" "nodeSelectorTerms" (list (dict)) $node -}}
{{- $terms := list -}}
{{- range $given -}}
{{- $terms = append $terms (mustMergeOverwrite (deepCopy .) (dict "matchExpressions" (concat (default (list) .matchExpressions) $required))) -}}
{{- end -}}
{{- $_ := set $node "requiredDuringSchedulingIgnoredDuringExecution" (dict "nodeSelectorTerms" $terms) -}}
{{- end -}}
{{- if and $m.spot.enabled (eq .place "any") -}}
{{- $wish := dict "weight" 100 "preference" (dict "matchExpressions" (list (dict "key" $m.spot.nodeLabel.key "operator" "In" "values" (list $m.spot.nodeLabel.spot)))) -}}
{{- $_ := set $node "preferredDuringSchedulingIgnoredDuringExecution" (append (default (list) $node.preferredDuringSchedulingIgnoredDuringExecution) $wish) -}}
{{- end -}}
{{- if $node -}}{{- $_ := set $affinity "nodeAffinity" $node -}}{{- end -}}
{{- toYaml $affinity -}}
{{- end -}}

{{- define "inferdock.engine.tolerations" -}}
{{- $tolerations := .model.tolerations -}}
{{- if gt (int .model.gpu.count) 0 -}}
{{- $tolerations = append $tolerations (dict "key" .model.gpu.resource "operator" "Exists" "effect" "NoSchedule") -}}
{{- end -}}
{{- if and .model.spot.enabled (eq .place "any") -}}
{{- $tolerations = concat $tolerations .model.spot.tolerations -}}
{{- end -}}
{{- toYaml $tolerations -}}
{{- end -}}
