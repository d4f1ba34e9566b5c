{{- define "meshupgrade.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "meshupgrade.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{- define "meshupgrade.serviceAccountName" -}}
{{- default (include "meshupgrade.fullname" .) .Values.serviceAccount.name }}
{{- end }}

{{/* The user name under which the API server knows the operator. */}}
{{- define "meshupgrade.username" -}}
system:serviceaccount:{{ .Release.Namespace }}:{{ include "meshupgrade.serviceAccountName" . }}
{{- end }}

{{- define "meshupgrade.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}
{{- end }}

{{- define "meshupgrade.selectorLabels" -}}
app.kubernetes.io/name: {{ include "meshupgrade.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "meshupgrade.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "meshupgrade.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: meshupgrade
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "meshupgrade.metricSourcesName" -}}
{{ include "meshupgrade.fullname" . | trunc 48 | trimSuffix "-" }}-metric-sources
{{- end }}

{{/* The file of metric sources. Every source that has files has a directory of its own. */}}
{{- define "meshupgrade.metricSources" -}}
sources:
{{- range $source := .Values.metricSources }}
  - {{ omit . "caConfigMap" "token" "timeoutSeconds" "maxBodyBytes" | toYaml | nindent 4 | trim }}
    {{- /* As numbers of values they may be floats, which are written with an exponent. */}}
    {{- range $field := list "timeoutSeconds" "maxBodyBytes" }}
    {{- with get $source $field }}
    {{ $field }}: {{ int64 . }}
    {{- end }}
    {{- end }}
    {{- if .caConfigMap }}
    caFile: /etc/meshupgrade/sources/{{ .name }}/ca.crt
    {{- end }}
    {{- if .token }}
    tokenFile: /etc/meshupgrade/sources/{{ .name }}/token
    {{- end }}
{{- end }}
{{- end }}
