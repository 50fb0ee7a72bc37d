{{/* What the cards and the nodes can carry. */}}


{{- define "inferdock.checks.cards" -}}
{{- if and (gt (int .gpu.count) 0) (dig "rollingUpdate" "maxSurge" 0 .strategy | toString | ne "0") (not .gpu.spare) -}}
{{- fail (printf "models.%s.strategy starts a new pod before an old one stops (maxSurge), which needs a spare card. Set gpu.spare: true if there is one, else maxSurge: 0 and maxUnavailable: 1." .key) -}}
{{- end -}}
{{- end -}}

{{/* (dict "root" $ "model" $m) */}}
{{- define "inferdock.checks.nodes" -}}
{{- $m := .model -}}
{{- $cards := .root.Files.Get "files/gpus.yaml" | fromYaml -}}
{{- $nodes := .root.Files.Get "files/instances.yaml" | fromYaml -}}
{{- $memory := $m.gpu.memoryGiB -}}
{{- $products := list -}}
{{- with $m.gpu.product -}}{{- $products = append $products . -}}{{- end -}}
{{- range $type := $m.instanceTypes -}}
{{- if not (hasKey $nodes $type) -}}
{{- fail (printf "models.%s: the chart knows no node type %s. Add it to files/instances.yaml, or use nodeSelector instead of instanceTypes." $m.key $type) -}}
{{- end -}}
{{- $node := get $nodes $type -}}
{{- include "inferdock.checks.room" (dict "model" $m "type" $type "node" $node) -}}
{{- if gt (int $m.gpu.count) 0 -}}{{- $products = append $products $node.product -}}{{- end -}}
{{- end -}}
{{- if gt (int $m.gpu.count) 0 -}}
{{- range $product := uniq $products -}}
{{- if not (hasKey $cards $product) -}}
{{- fail (printf "models.%s: the chart knows no card %s. Add it to files/gpus.yaml, or give gpu.memoryGiB instead of gpu.product." $m.key $product) -}}
{{- end -}}
{{- $card := get $cards $product -}}
{{- include "inferdock.checks.capability" (dict "model" $m "product" $product "card" $card) -}}
{{- $memory = ternary $card.memoryGiB (min (float64 $card.memoryGiB) (float64 (default 0 $memory))) (kindIs "invalid" $memory) -}}
{{- end -}}
{{- if and (not (kindIs "invalid" $memory)) (hasKey $m "facts") -}}
{{- include "inferdock.checks.memory" (dict "model" $m "memory" $memory) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/*
What a node has for pods; files/instances.yaml says where the numbers come from. No type there has fewer than 4 vCPUs, whose part is 80m.
(dict "model" $m "type" "g5.xlarge" "node" (dict))
*/}}
{{- define "inferdock.checks.room" -}}
{{- $m := .model -}}
{{- $requests := default (dict) $m.resources.requests -}}
{{- $memory := subf (mulf .node.memoryGiB 0.925) (divf (add 355 (mul 11 .node.pods)) 1024.0) -}}
{{- $cpu := .node.cpu | int -}}
{{- $reserved := add 80 (divf (mul 5 (sub $cpu 4)) 2.0 | ceil | int) 150 -}}
{{- with $requests.memory -}}
{{- if gt (divf (float64 (include "inferdock.bytes" .)) 1073741824.0) $memory -}}
{{- fail (printf "models.%s asks for %v of memory, and a node %s has %.1f GiB of its %v left for pods: the pod would wait for ever. Lower resources.requests.memory, or take a larger type." $m.key . $.type $memory $.node.memoryGiB) -}}
{{- end -}}
{{- end -}}
{{- with $requests.cpu -}}
{{- if gt (include "inferdock.millicores" . | int) (int (sub (mul $cpu 1000) $reserved)) -}}
{{- fail (printf "models.%s asks for %v processors, and a node %s has %v, less what the system takes: the pod would wait for ever. Lower resources.requests.cpu." $m.key . $.type $.node.cpu) -}}
{{- end -}}
{{- end -}}
{{- if gt (int $m.gpu.count) (int .node.gpus) -}}
{{- fail (printf "models.%s asks for %v cards, and a node %s has %v." $m.key $m.gpu.count .type .node.gpus) -}}
{{- end -}}
{{- end -}}

{{- define "inferdock.checks.capability" -}}
{{- $m := .model -}}
{{- $needs := 7.0 -}}
{{- $why := "vLLM" -}}
{{- if hasPrefix "awq" $m.quantization -}}{{- $needs = 7.5 -}}{{- $why = "AWQ in vLLM" -}}{{- end -}}
{{- if eq $m.dtype "bfloat16" -}}{{- $needs = 8.0 -}}{{- $why = "bfloat16" -}}{{- end -}}
{{- if lt (float64 .card.capability) (float64 $needs) -}}
{{- fail (printf "models.%s: %s needs compute capability %.1f, and %s has %.1f. Take a newer card (g5, g6, g6e nodes)." $m.key $why (float64 $needs) .product (float64 .card.capability)) -}}
{{- end -}}
{{- end -}}

{{/*
Weights, activations and at least one sequence of full length must fit into the share of the cards that vLLM takes. A token's keys and
values take 2 x layers x kvHeads x headDim x kvBytes bytes; activations and graphs are taken as 1 GiB per card. (dict "model" $m "memory" 24)
*/}}
{{- define "inferdock.checks.memory" -}}
{{- $m := .model -}}
{{- $f := $m.facts -}}
{{- $count := float64 $m.gpu.count -}}
{{- $share := mulf (float64 .memory) $count (float64 $m.gpuMemoryUtilization) -}}
{{- $left := subf $share (float64 $f.weightGiB) $count -}}
{{- $token := mulf 2.0 (float64 $f.layers) (float64 $f.kvHeads) (float64 $f.headDim) (float64 (default 2 $f.kvBytes)) -}}
{{- $context := divf (mulf $token (float64 (default 4096 $m.maxModelLen))) 1073741824.0 -}}
{{- if lt $left $context -}}
{{- fail (printf "models.%s does not fit: vLLM may take %.1f GiB (%v x %v GiB x %v), the weights take %.1f, activations %.1f, and one sequence of %v tokens needs %.2f GiB of KV cache. Shorten maxModelLen, quantise, take a larger card or more of them." $m.key $share $m.gpu.count .memory $m.gpuMemoryUtilization (float64 $f.weightGiB) $count (default 4096 $m.maxModelLen) $context) -}}
{{- end -}}
{{- end -}}
