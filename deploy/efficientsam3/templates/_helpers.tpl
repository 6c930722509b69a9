{{/* Names, labels, images: what several files need. */}}

{{- define "efficientsam3.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 30 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 30 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 30 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* What a component's pods are selected by: list of the root and the component's name. */}}
{{- define "efficientsam3.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ default $root.Chart.Name $root.Values.nameOverride }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* Labels of an object of a component, as above. */}}
{{- define "efficientsam3.labels" -}}
{{- $root := index . 0 -}}
{{ include "efficientsam3.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* An image's whole name: list of the root and the key below `images`. */}}
{{- define "efficientsam3.image" -}}
{{- $root := index . 0 -}}
{{- $image := index $root.Values.images (index . 1) -}}
{{- with $root.Values.images.registry }}{{ . }}/{{ end -}}
{{- $image.repository -}}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ $image.tag | default $root.Chart.AppVersion }}{{ end -}}
{{- end -}}

{{/*
The variants as a JSON list: each entry over `workers`, and beside what it says
  suffix   tells its objects from those of others: the name, and the digest's first digits where one is given
  key      what the gateway knows it by: the name, or name@digest where it takes no new sessions
  store    where its artefact is mounted; empty where it comes with the image
*/}}
{{- define "efficientsam3.variants" -}}
{{- $all := list -}}
{{- range .Values.variants -}}
  {{- $variant := mustMergeOverwrite (deepCopy $.Values.workers) (deepCopy .) -}}
  {{- $digits := .digest | default "" | trimPrefix "sha256:" | trunc 12 -}}
  {{- $_ := set $variant "digits" $digits -}}
  {{- $_ := set $variant "suffix" (empty $digits | ternary .name (printf "%s-%s" .name (trunc 8 $digits))) -}}
  {{- $_ := set $variant "key" (.retiring | default false | ternary (printf "%s@%s" .name $digits) .name) -}}
  {{- $artefact := .artefact | default dict -}}
  {{- $_ := set $variant "artefact" $artefact -}}
  {{- $_ := set $variant "store" (or $artefact.claim $artefact.image $artefact.from | empty | ternary "" "/var/lib/efficientsam3") -}}
  {{- $all = append $all $variant -}}
{{- end -}}
{{- $all | toJson -}}
{{- end -}}

{{/* The name of a variant's Deployment and Service: list of the root and the variant. */}}
{{- define "efficientsam3.worker" -}}
{{- printf "%s-%s" (include "efficientsam3.fullname" (index . 0)) (index . 1).suffix -}}
{{- end -}}

{{/* What selects our gateways' series in Prometheus, for between braces. */}}
{{- define "efficientsam3.matchers" -}}
{{- $service := printf "%s-gateway" (include "efficientsam3.fullname" .) -}}
{{- $matchers := .Values.monitoring.matchers | default (dict "namespace" .Release.Namespace "service" $service) -}}
{{- $parts := list -}}
{{- range $label, $value := $matchers }}{{ $parts = append $parts (printf "%s=%q" $label $value) }}{{ end -}}
{{- join "," $parts -}}
{{- end -}}

{{/* Seconds that a process has between SIGTERM and SIGKILL, beyond its drain: to close what it has open. */}}
{{- define "efficientsam3.margin" -}}15{{- end -}}
