{{/* Settings as variables of the environment: their names are those of service/config.py. */}}

{{/* One setting: list of its name and its value. What is no text is JSON. */}}
{{- define "efficientsam3.setting" -}}
{{- $value := index . 1 }}
- name: EFFICIENTSAM3_{{ index . 0 | upper }}
  value: {{ kindIs "string" $value | ternary $value (toJson $value) | quote }}
{{- end -}}

{{/* Those of a map. */}}
{{- define "efficientsam3.settings" -}}
{{- range $name, $value := . }}
{{- include "efficientsam3.setting" (list $name $value) }}
{{- end }}
{{- end -}}

{{/* Of both processes: what they share, and Redis. */}}
{{- define "efficientsam3.shared-env" -}}
{{- include "efficientsam3.redis-env" . }}
{{- include "efficientsam3.settings" .Values.settings }}
{{- end -}}

{{/* The address of Redis. Its password stands before it, so that the kubelet can put it in. */}}
{{- define "efficientsam3.redis-env" -}}
{{- $redis := .Values.redis -}}
{{- if ne $redis.mode "none" }}
{{- $bundled := eq $redis.mode "bundled" -}}
{{- $user := $bundled | ternary "" $redis.external.username -}}
{{- $host := $bundled | ternary (printf "%s-redis" (include "efficientsam3.fullname" .)) $redis.external.host -}}
{{- $port := $bundled | ternary 6379 $redis.external.port -}}
{{- $db := $bundled | ternary 0 $redis.external.db -}}
{{- $who := $redis.passwordSecret.name | empty | ternary "" (printf "%s:$(REDIS_PASSWORD)@" (urlquery $user)) }}
{{- $query := and $redis.tls.enabled $redis.tls.secret | empty | ternary "" "?ssl_ca_certs=/etc/efficientsam3/redis/ca.crt" }}
{{- with $redis.passwordSecret.name }}
- name: REDIS_PASSWORD
  valueFrom:
    secretKeyRef:
      name: {{ . }}
      key: {{ $redis.passwordSecret.key }}
{{- end }}
- name: EFFICIENTSAM3_REDIS_URL
  value: {{ printf "%s://%s%s:%d/%d%s" ($redis.tls.enabled | ternary "rediss" "redis") $who $host (int $port) (int $db) $query | quote }}
{{- end }}
{{- end -}}

{{/* Files that both processes mount: list items of volumes. */}}
{{- define "efficientsam3.shared-volumes" -}}
- name: tmp
  emptyDir:
    sizeLimit: 1Gi
{{- if include "efficientsam3.redis-authority" . }}
{{ include "efficientsam3.secret-volume" (list "redis-authority" .Values.redis.tls.secret (list "ca.crt")) }}
{{- end }}
{{- end -}}

{{- define "efficientsam3.shared-mounts" -}}
- name: tmp
  mountPath: /tmp
{{- if include "efficientsam3.redis-authority" . }}
- name: redis-authority
  mountPath: /etc/efficientsam3/redis
  readOnly: true
{{- end }}
{{- end -}}

{{/* Not empty where the authority of Redis' certificate is mounted. */}}
{{- define "efficientsam3.redis-authority" -}}
{{- $redis := .Values.redis -}}
{{- if and (ne $redis.mode "none") $redis.tls.enabled $redis.tls.secret }}yes{{ end -}}
{{- end -}}

{{/* A volume of some keys of a Secret: list of the volume's name, the Secret's, and the keys. */}}
{{- define "efficientsam3.secret-volume" -}}
- name: {{ index . 0 }}
  secret:
    secretName: {{ index . 1 }}
    defaultMode: 0440
    items:
      {{- range index . 2 }}
      - key: {{ . }}
        path: {{ . }}
      {{- end }}
{{- end -}}
