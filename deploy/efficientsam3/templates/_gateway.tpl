{{/* The gateway's environment. */}}
{{- define "efficientsam3.gateway-env" -}}
{{- include "efficientsam3.shared-env" . }}
{{- include "efficientsam3.settings" (dict
    "host" "0.0.0.0"
    "http_port" 8080
    "grpc_port" 8081
    "workers_file" "/etc/efficientsam3/workers/workers.json"
    "drain_s" .Values.gateway.drainSeconds
) }}
{{- with .Values.defaultVariant }}
{{- include "efficientsam3.setting" (list "default_variant" .) }}
{{- end }}
{{- if .Values.gateway.keysSecret.name }}
{{- include "efficientsam3.setting" (list "keys_file" (printf "/etc/efficientsam3/keys/%s" .Values.gateway.keysSecret.key)) }}
{{- end }}
{{- with .Values.gateway.tls }}
{{- if .secret }}
{{- include "efficientsam3.settings" (dict
    "tls_certificate" "/etc/efficientsam3/tls/tls.crt"
    "tls_key" "/etc/efficientsam3/tls/tls.key"
) }}
{{- end }}
{{- if .clientCa }}
{{- include "efficientsam3.setting" (list "tls_client_ca" "/etc/efficientsam3/tls/ca.crt") }}
{{- end }}
{{- end }}
{{- with .Values.workersTls }}
{{- if .enabled }}
{{- include "efficientsam3.settings" (dict
    "workers_ca" "/etc/efficientsam3/workers-tls/ca.crt"
    "workers_certificate" "/etc/efficientsam3/workers-tls/tls.crt"
    "workers_key" "/etc/efficientsam3/workers-tls/tls.key"
    "workers_server_name" .serverName
) }}
{{- end }}
{{- end }}
{{- include "efficientsam3.settings" .Values.gateway.settings }}
{{- end -}}

{{/* How the kubelet asks: list of the root and the path. It has no certificate to show. */}}
{{- define "efficientsam3.gateway-probe" -}}
{{- $tls := (index . 0).Values.gateway.tls -}}
{{- if $tls.clientCa -}}
tcpSocket:
  port: http
{{- else -}}
httpGet:
  path: {{ index . 1 }}
  port: http
  scheme: {{ empty $tls.secret | ternary "HTTP" "HTTPS" }}
{{- end -}}
{{- end -}}
