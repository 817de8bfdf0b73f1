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
{{- if eq .Values.runs.launcher "k8s" }}
# Runs are started, looked after and ended through the API of Kubernetes.
serviceAccountName: {{ .Release.Name }}-launcher
automountServiceAccountToken: true
{{- else }}
automountServiceAccountToken: false
{{- end }}
{{ include "tsds.podSecurity" . }}
{{- end }}

{{/* Of every pod, those of runs too. */}}
{{- define "tsds.podSecurity" -}}
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
{{ include "tsds.process" . }}
{{- end }}

{{/* Of every container, those of runs too. */}}
{{- define "tsds.process" -}}
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

{{/* Where the instance is not the one in the image, but for its run launcher: runs.yaml. */}}
{{- define "tsds.instanceMount" -}}
{{- if ne .Values.runs.launcher "code" }}
- name: dagster
  mountPath: /opt/tsds/dagster/dagster.yaml
  subPath: dagster.yaml
{{- end }}
{{- end }}

{{- define "tsds.instanceVolume" -}}
{{- if ne .Values.runs.launcher "code" }}
- name: dagster
  configMap:
    name: {{ .Release.Name }}-dagster
{{- end }}
{{- end }}

{{/* Processes read it when they start. */}}
{{- define "tsds.instanceChecksum" -}}
{{- if ne .Values.runs.launcher "code" }}
annotations:
  checksum/dagster: {{ include "tsds.instance" . | sha256sum }}
{{- end }}
{{- end }}

{{/* infra/dagster.yaml with another run launcher. */}}
{{- define "tsds.instance" -}}
{{- $instance := .Files.Get "dagster.yaml" | fromYaml }}
{{- $_ := set $instance "run_launcher" (include (printf "tsds.%sLauncher" .Values.runs.launcher) . | fromYaml) }}
{{- $_ := set $instance.concurrency.runs "max_concurrent_runs" (int .Values.runs.limit) }}
{{- toYaml $instance }}
{{- end }}

{{- define "tsds.k8sLauncher" -}}
module: dagster_k8s
class: K8sRunLauncher
config:
  job_namespace: {{ .Release.Namespace }}
  job_image: {{ include "tsds.image" . }}
  image_pull_policy: {{ .Values.image.pullPolicy }}
  image_pull_secrets:
    {{- toYaml .Values.imagePullSecrets | nindent 4 }}
  # It needs no rights: it is given no token.
  service_account_name: default
  instance_config_map: {{ .Release.Name }}-dagster
  dagster_home: /opt/tsds/dagster
  # So that the network policy lets them pass.
  labels:
    app.kubernetes.io/name: tsds
    app.kubernetes.io/instance: {{ .Release.Name }}
  volumes:
    - name: project
      persistentVolumeClaim:
        claimName: {{ .Values.project.existingClaim | default (printf "%s-project" .Release.Name) }}
    - name: tmp
      emptyDir: {}
    {{- include "tsds.instanceVolume" . | nindent 4 }}
  volume_mounts:
    - name: project
      mountPath: /project
    - name: tmp
      mountPath: /tmp
    {{- include "tsds.instanceMount" . | nindent 4 }}
  resources:
    {{- toYaml .Values.runs.resources | nindent 4 }}
  run_k8s_config:
    container_config:
      {{- include "tsds.process" . | nindent 6 }}
    pod_spec_config:
      automountServiceAccountToken: false
      {{- include "tsds.podSecurity" . | nindent 6 }}
      {{- with .Values.runs.nodeSelector }}
      nodeSelector:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .Values.runs.tolerations }}
      tolerations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
    job_spec_config:
      ttlSecondsAfterFinished: 86400
{{- end }}

{{- define "tsds.rayLauncher" -}}
module: tsds_pipeline.orchestration.ray_launcher
class: RayJobRunLauncher
config:
  ray:
    address: {{ .Values.runs.ray.address }}
    memory: {{ int64 .Values.runs.ray.memory }}
{{- end }}
