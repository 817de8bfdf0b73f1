{{- define "tsds.labels" -}}
app.kubernetes.io/name: tsds
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{/* Of one process: (list . "code"). */}}
{{- define "tsds.selector" -}}
app.kubernetes.io/name: tsds
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "tsds.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "tsds.postgresHost" -}}
{{- if .Values.postgresql.bundled -}}
{{ .Release.Name }}-postgres
{{- else -}}
{{ required "postgresql.host: names the external database" .Values.postgresql.host }}
{{- end -}}
{{- end }}

{{/* The variables of all three: those of compose.yaml, which a test compares. */}}
{{- define "tsds.env" -}}
- name: PGHOST
  value: {{ include "tsds.postgresHost" . | quote }}
- name: PGPORT
  value: {{ .Values.postgresql.port | quote }}
- name: PGUSER
  value: {{ .Values.postgresql.user | quote }}
- name: PGPASSWORD
  valueFrom:
    secretKeyRef:
      name: {{ .Values.postgresql.existingSecret }}
      key: password
- name: PGDATABASE
  value: {{ .Values.postgresql.database | quote }}
- name: DAGSTER_HOME
  value: /opt/tsds/dagster
- name: DAGSTER_DISABLE_TELEMETRY
  value: "1"
- name: TSDS_PROJECT
  value: /project
- name: TSDS_AUTOMATION
  value: {{ ternary "on" "off" .Values.automation | quote }}
- name: TSDS_LOG
  value: json
- name: TSDS_CODE_HOST
  value: {{ .Release.Name }}-code
- name: TSDS_CODE_PORT
  value: "4000"
- name: TSDS_BACKUPS
  value: /backups
{{- range $name, $value := .Values.env }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end }}

{{/* What the pods of all three have in common. */}}
{{- define "tsds.pod" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
automountServiceAccountToken: false
# Kubernetes would set variables like TSDS_CODE_PORT for the services.
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- end }}

{{/* And their containers. */}}
{{- define "tsds.container" -}}
image: {{ include "tsds.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
env:
  {{- include "tsds.env" . | nindent 2 }}
{{- with .Values.envFromSecrets }}
envFrom:
  {{- range . }}
  - secretRef:
      name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}
