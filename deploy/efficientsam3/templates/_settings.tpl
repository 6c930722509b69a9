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

{{/* The address of Redis, or of its sentinels. Passwords stand before it, so that the kubelet can put them in. */}}
{{- define "efficientsam3.redis-env" -}}
{{- $redis := .Values.redis -}}
{{- if ne $redis.mode "none" }}
{{- $external := $redis.external -}}
{{- $hosts := printf "%s-redis:6379/0" (include "efficientsam3.fullname" .) -}}
{{- $user := "" -}}
{{- $kind := "" -}}
{{- $options := list -}}
{{- if and $redis.tls.enabled $redis.tls.secret -}}
  {{- $options = append $options "ssl_ca_certs=/etc/efficientsam3/redis/ca.crt" -}}
{{- end -}}
{{- if eq $redis.mode "external" -}}
  {{- $user = $external.username -}}
  {{- $hosts = printf "%s:%d/%d" $external.host (int $external.port) (int $external.db) -}}
  {{- with $external.sentinel.master -}}
    {{- $kind = "+sentinel" -}}
    {{- $hosts = printf "%s/%s/%d" (join "," $external.sentinel.hosts) . (int $external.db) -}}
  {{- end -}}
{{- end -}}
{{- with $redis.passwordSecret }}{{ if .name }}
{{- $user = printf "%s:$(REDIS_PASSWORD)@" (urlquery $user) }}
{{- include "efficientsam3.secret-variable" (list "REDIS_PASSWORD" .) }}
{{- end }}{{ end }}
{{- with $external.sentinel.passwordSecret }}{{ if and $kind .name }}
{{- $options = append $options "sentinel_password=$(REDIS_SENTINEL_PASSWORD)" }}
{{- include "efficientsam3.secret-variable" (list "REDIS_SENTINEL_PASSWORD" .) }}
{{- end }}{{ end }}
- name: EFFICIENTSAM3_REDIS_URL
  value: {{ printf "%s%s://%s%s%s" ($redis.tls.enabled | ternary "rediss" "redis") $kind $user $hosts ($options | empty | ternary "" (printf "?%s" (join "&" $options))) | quote }}
{{- end }}
{{- end -}}

{{/* A variable from a Secret: list of its name, and of the Secret's name and key. */}}
{{- define "efficientsam3.secret-variable" }}
- name: {{ index . 0 }}
  valueFrom:
    secretKeyRef:
      name: {{ (index . 1).name }}
      key: {{ (index . 1).key }}
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
