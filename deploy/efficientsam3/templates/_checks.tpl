{{/* What values.schema.json cannot say: values that contradict each other. Included once; it renders nothing. */}}
{{- define "efficientsam3.checks" -}}
{{- $current := dict -}}
{{- $suffixes := dict -}}
{{- range $index, $variant := include "efficientsam3.variants" . | fromJsonArray -}}
  {{- $place := printf "variants[%d] (%s)" $index $variant.name -}}
  {{- if hasKey $suffixes $variant.suffix -}}
    {{- fail (printf "%s: another entry has the same name and digest; two artefacts of a variant need a digest each" $place) -}}
  {{- end -}}
  {{- $_ := set $suffixes $variant.suffix true -}}
  {{- if $variant.retiring -}}
    {{- if not $variant.digest -}}
      {{- fail (printf "%s.digest: an artefact that is retiring is known by its digest" $place) -}}
    {{- end -}}
  {{- else if hasKey $current $variant.name -}}
    {{- fail (printf "%s: the variant has an entry already that takes new sessions; set retiring on the older one" $place) -}}
  {{- else -}}
    {{- $_ := set $current $variant.name true -}}
  {{- end -}}
  {{- if and $variant.retiringUntil (not $variant.retiring) -}}
    {{- fail (printf "%s.retiringUntil: it needs retiring" $place) -}}
  {{- end -}}
  {{- if and $variant.digest (not $variant.store) -}}
    {{- fail (printf "%s.digest: nothing can check it, since artefact says nothing" $place) -}}
  {{- end -}}
  {{- $sources := list -}}
  {{- range list "claim" "image" "from" -}}
    {{- if index $variant.artefact . }}{{ $sources = append $sources . }}{{ end -}}
  {{- end -}}
  {{- if gt (len $sources) 1 -}}
    {{- fail (printf "%s.artefact: %s are given; it is in one place" $place (join " and " $sources)) -}}
  {{- end -}}
  {{- if and $variant.artefact.from (not $variant.digest) -}}
    {{- fail (printf "%s.digest: what is pulled is verified by it" $place) -}}
  {{- end -}}
  {{- if and $variant.artefact.path $variant.artefact.from -}}
    {{- fail (printf "%s.artefact.path: it is a folder of a claim or an image" $place) -}}
  {{- end -}}
  {{- if gt (int $variant.replicas.min) (int $variant.replicas.max) -}}
    {{- fail (printf "%s.replicas: min is %d, max is %d" $place (int $variant.replicas.min) (int $variant.replicas.max)) -}}
  {{- end -}}
  {{- if and (eq (int $variant.replicas.min) 0) (not $.Values.autoscaling.enabled) -}}
    {{- fail (printf "%s.replicas.min: 0 needs autoscaling.enabled, or nobody starts a worker" $place) -}}
  {{- end -}}
  {{- if and (eq (int $variant.rollout.maxSurge) 0) (eq (int $variant.rollout.maxUnavailable) 0) -}}
    {{- fail (printf "%s.rollout: maxSurge and maxUnavailable are both 0" $place) -}}
  {{- end -}}
{{- end -}}
{{- range $index, $variant := .Values.variants -}}
  {{- if and .retiring (not (hasKey $current .name)) -}}
    {{- fail (printf "variants[%d] (%s): no other entry takes the variant's new sessions" $index .name) -}}
  {{- end -}}
{{- end -}}
{{- with .Values.defaultVariant -}}
  {{- if not (hasKey $current .) -}}
    {{- fail (printf "defaultVariant: %s is not among variants" .) -}}
  {{- end -}}
{{- end -}}
{{- with .Values.redis -}}
  {{- if and (eq .mode "bundled") (not .passwordSecret.name) -}}
    {{- fail "redis.passwordSecret.name: the bundled Redis needs a Secret with its password" -}}
  {{- end -}}
  {{- if and (eq .mode "bundled") .tls.enabled (not .tls.secret) -}}
    {{- fail "redis.tls.secret: the bundled Redis needs a Secret with tls.crt, tls.key and ca.crt" -}}
  {{- end -}}
  {{- with .external.sentinel -}}
    {{- if ne (empty .master) (empty .hosts) -}}
      {{- fail "redis.external.sentinel: master and hosts, or neither" -}}
    {{- end -}}
  {{- end -}}
  {{- if and (eq .mode "external") (eq (empty .external.host) (empty .external.sentinel.master)) -}}
    {{- fail (.external.host | empty | ternary "redis.external.host: it is empty" "redis.external: either host or sentinel") -}}
  {{- end -}}
  {{- if and .external.username (not .passwordSecret.name) -}}
    {{- fail "redis.external.username: it needs redis.passwordSecret.name" -}}
  {{- end -}}
{{- end -}}
{{- if and .Values.autoscaling.enabled (not .Values.autoscaling.prometheusAddress) -}}
  {{- fail "autoscaling.prometheusAddress: KEDA needs the Prometheus that scrapes the gateways" -}}
{{- end -}}
{{- with .Values.gateway.autoscaling -}}
  {{- if and .enabled (gt (int .min) (int .max)) -}}
    {{- fail (printf "gateway.autoscaling: min is %d, max is %d" (int .min) (int .max)) -}}
  {{- end -}}
{{- end -}}
{{- if and .Values.gateway.tls.clientCa (not .Values.gateway.tls.secret) -}}
  {{- fail "gateway.tls.clientCa: it needs gateway.tls.secret" -}}
{{- end -}}
{{- with .Values.workersTls -}}
  {{- if and .enabled (not (and .workerSecret .gatewaySecret .serverName)) -}}
    {{- fail "workersTls: workerSecret, gatewaySecret and serverName are needed, since workers are asked by their pods' addresses" -}}
  {{- end -}}
{{- end -}}
{{- with .Values.ingress -}}
  {{- range $kind := list "http" "grpc" -}}
    {{- with index $.Values.ingress $kind -}}
      {{- if and .enabled (not .host) -}}
        {{- fail (printf "ingress.%s.host: it is empty" $kind) -}}
      {{- end -}}
    {{- end -}}
  {{- end -}}
  {{- if and .http.enabled .grpc.enabled (eq .http.host .grpc.host) -}}
    {{- fail "ingress.grpc.host: it is that of ingress.http, and gRPC needs all paths of its own" -}}
  {{- end -}}
{{- end -}}
{{- end -}}
