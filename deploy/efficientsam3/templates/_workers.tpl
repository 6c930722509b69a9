{{/* What tells a variant's workers from those of others: a variant. */}}
{{- define "efficientsam3.worker-labels" -}}
efficientsam3/variant: {{ .name }}
efficientsam3/artefact: {{ .digits | default "unnamed" | quote }}
{{- end -}}

{{/* List of the root and the variant. */}}
{{- define "efficientsam3.worker-image" -}}
{{- $variant := index . 1 -}}
{{- if $variant.image -}}
{{- $variant.image -}}
{{- else -}}
{{- include "efficientsam3.image" (list (index . 0) (eq $variant.device "gpu" | ternary "workerGpu" "workerCpu")) -}}
{{- end -}}
{{- end -}}

{{/* A worker's environment: list of the root and the variant. */}}
{{- define "efficientsam3.worker-env" -}}
{{- $root := index . 0 -}}
{{- $variant := index . 1 -}}
{{- $settings := dict "listen" "0.0.0.0:50061" "metrics_listen" "0.0.0.0:50062" "drain_s" $variant.drainSeconds -}}
{{- with $variant.store }}{{ $_ := set $settings "store" . }}{{ end -}}
{{- if eq $variant.device "gpu" }}{{ $_ := set $settings "device" "cuda" }}{{ end -}}
{{- if $root.Values.workersTls.enabled -}}
  {{- $_ := set $settings "listen_certificate" "/etc/efficientsam3/tls/tls.crt" -}}
  {{- $_ := set $settings "listen_key" "/etc/efficientsam3/tls/tls.key" -}}
  {{- $_ := set $settings "listen_client_ca" "/etc/efficientsam3/tls/ca.crt" -}}
{{- end -}}
{{- include "efficientsam3.shared-env" $root }}
{{- include "efficientsam3.settings" (mustMergeOverwrite $settings $variant.settings) }}
{{- if not (hasKey $variant.settings "threads") }}
# Without it the engine would have a thread for each of the node's processors.
- name: EFFICIENTSAM3_THREADS
  valueFrom:
    resourceFieldRef:
      containerName: worker
      resource: requests.cpu
      divisor: "1"
{{- end }}
{{- end -}}

{{/* The root. The kubelet's gRPC probe knows no TLS; beside the metrics there is none. */}}
{{- define "efficientsam3.worker-probe" -}}
{{- if .Values.workersTls.enabled -}}
httpGet:
  path: /readyz
  port: metrics
{{- else -}}
grpc:
  port: 50061
  service: efficientsam3.v1.Segmentation
{{- end -}}
{{- end -}}

{{/* A variant. A GPU is asked for as a limit. */}}
{{- define "efficientsam3.worker-resources" -}}
{{- $resources := deepCopy .resources -}}
{{- if eq .device "gpu" -}}
{{- $resources = mustMergeOverwrite $resources (dict "limits" (dict .gpu.resource (int .gpu.count))) -}}
{{- end -}}
{{- toYaml $resources -}}
{{- end -}}

{{/* The volume of an artefact that does not come with the image: the artefact. */}}
{{- define "efficientsam3.artefact-volume" -}}
- name: artefact
  {{- if .claim }}
  persistentVolumeClaim:
    claimName: {{ .claim }}
    readOnly: true
  {{- else if .image }}
  image:
    reference: {{ .image }}
    pullPolicy: IfNotPresent
  {{- else }}
  emptyDir: {}
  {{- end }}
{{- end -}}

{{/* List of the variant and whether it is only read. */}}
{{- define "efficientsam3.artefact-mount" -}}
{{- $variant := index . 0 -}}
- name: artefact
  mountPath: {{ $variant.store }}
  readOnly: {{ index . 1 }}
  {{- with $variant.artefact.path }}
  subPath: {{ . }}
  {{- end }}
{{- end -}}

{{/* The port of an address, http:// or https://. */}}
{{- define "efficientsam3.port" -}}
{{- $url := urlParse . -}}
{{- $written := regexFind "[0-9]+$" (regexFind ":[0-9]+$" $url.host) -}}
{{- $written | default (eq $url.scheme "https" | ternary "443" "80") -}}
{{- end -}}

{{/* Brings the artefact, or refuses one that is not of the digest. The worker itself compares every other file with
what the manifest says. List of the root and the variant. */}}
{{- define "efficientsam3.artefact-step" -}}
{{- $variant := index . 1 -}}
{{- $digest := trimPrefix "sha256:" $variant.digest -}}
- name: artefact
  image: {{ include "efficientsam3.worker-image" . }}
  imagePullPolicy: {{ (index . 0).Values.images.pullPolicy }}
  {{- if $variant.artefact.from }}
  command: [efficientsam3, variants, pull, {{ $variant.name }}, --from, {{ $variant.artefact.from }}, --digest, {{ $digest | quote }}]
  env:
    {{- include "efficientsam3.setting" (list "store" $variant.store) | trim | nindent 4 }}
  {{- else }}
  command: [sh, -c, 'echo "$DIGEST  $MANIFEST" | sha256sum -c -']
  env:
    - name: MANIFEST
      value: {{ $variant.store }}/{{ $variant.name }}/manifest.json
    - name: DIGEST
      value: {{ $digest | quote }}
  {{- end }}
  {{- include "efficientsam3.container-security" . | nindent 2 }}
  resources:
    requests: {cpu: 100m, memory: 128Mi}
    limits: {memory: 512Mi}
  volumeMounts:
    - name: tmp
      mountPath: /tmp
    {{- include "efficientsam3.artefact-mount" (list $variant (empty $variant.artefact.from)) | nindent 4 }}
{{- end -}}
