{{/* The names of what the chart makes; a second installation needs another release name and another runtimeClass.name. */}}
{{- define "coracle.name" -}}
{{- if contains "coracle" .Release.Name }}{{ .Release.Name }}{{ else }}{{ printf "%s-coracle" .Release.Name }}{{ end }}
{{- end }}

{{- define "coracle.labels" -}}
{{ include "coracle.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "coracle.selector" -}}
app.kubernetes.io/name: coracle
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "coracle.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}
{{- end }}

{{/* The label of a node whose containerd has loaded the handler; the daemon keeps it true. */}}
{{- define "coracle.nodeLabel" -}}
coracle.dev/{{ .Values.runtimeClass.name }}
{{- end }}

{{- define "coracle.imageFields" -}}
image: {{ include "coracle.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- end }}

{{/* As an argument of the installer; nothing when it is to look itself. */}}
{{- define "coracle.distribution" -}}
{{- if ne .Values.install.distribution "auto" }}--distribution={{ .Values.install.distribution }}{{ end }}
{{- end }}
