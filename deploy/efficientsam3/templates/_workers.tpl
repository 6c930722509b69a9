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
{{- if eq $variant.device "gpu" }}{{ $_ := set $settings "engine" "onnxruntime" }}{{ end -}}
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

{{/* The root. The kubelet's gRPC probe knows no TLS. */}}
{{- define "efficientsam3.worker-probe" -}}
{{- if .Values.workersTls.enabled -}}
tcpSocket:
  port: grpc
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
  {{- else }}
  image:
    reference: {{ .image }}
    pullPolicy: IfNotPresent
  {{- end }}
{{- end -}}

{{/* A variant. */}}
{{- define "efficientsam3.artefact-mount" -}}
- name: artefact
  mountPath: {{ .store }}
  readOnly: true
  {{- with .artefact.path }}
  subPath: {{ . }}
  {{- end }}
{{- end -}}

{{/* Waits for an artefact that is pulled, and refuses one that is not of the digest. The worker itself checks
every other file by what the manifest says. List of the root and the variant. */}}
{{- define "efficientsam3.artefact-check" -}}
{{- $variant := index . 1 -}}
- name: artefact
  image: {{ include "efficientsam3.worker-image" . }}
  imagePullPolicy: {{ (index . 0).Values.images.pullPolicy }}
  command:
    - sh
    - -euc
    - |
      {{- if $variant.artefact.pull }}
      until [ -f "$MANIFEST" ]; do echo "waiting for $MANIFEST"; sleep 2; done
      {{- end }}
      {{- if $variant.digest }}
      echo "$DIGEST  $MANIFEST" | sha256sum --check -
      {{- end }}
  env:
    - name: MANIFEST
      value: {{ $variant.store }}/{{ $variant.name }}/manifest.json
    {{- with $variant.digest }}
    - name: DIGEST
      value: {{ trimPrefix "sha256:" . }}
    {{- end }}
  {{- include "efficientsam3.container-security" . | nindent 2 }}
  resources:
    requests: {cpu: 10m, memory: 16Mi}
    limits: {memory: 64Mi}
  volumeMounts:
    {{- include "efficientsam3.artefact-mount" $variant | nindent 4 }}
{{- end -}}
