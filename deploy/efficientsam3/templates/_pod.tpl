{{/* What every pod of ours has: its security, and no more of the cluster than it needs. */}}

{{/* Of a pod: list of the root and the service account's component. */}}
{{- define "efficientsam3.pod" -}}
{{- $root := index . 0 -}}
serviceAccountName: {{ include "efficientsam3.fullname" $root }}-{{ index . 1 }}
automountServiceAccountToken: false
# Those variables have the form of our settings: a Service called efficientsam3-http would set a port.
enableServiceLinks: false
{{- with $root.Values.images.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: {{ $root.Values.podSecurity.runAsUser }}
  runAsGroup: {{ $root.Values.podSecurity.runAsGroup }}
  fsGroup: {{ $root.Values.podSecurity.fsGroup }}
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- end -}}

{{/* Of every container. */}}
{{- define "efficientsam3.container-security" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  runAsNonRoot: true
  capabilities:
    drop: [ALL]
{{- end -}}

{{/* Where pods go: the values of a component. */}}
{{- define "efficientsam3.place" -}}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}

{{/* Over zones and nodes as evenly as there is room: the labels that select the pods, as YAML. */}}
{{- define "efficientsam3.spread" -}}
topologySpreadConstraints:
  {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - topologyKey: {{ . }}
    maxSkew: 1
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- $ | nindent 8 }}
    # Of the same rollout: those that are about to go do not count.
    matchLabelKeys: [pod-template-hash]
  {{- end }}
{{- end -}}
