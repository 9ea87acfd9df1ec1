{{/* What the operator's objects are called: the release, and the chart where the release lacks it. */}}
{{- define "operator.name" -}}
{{- $name := ternary .Release.Name (printf "%s-%s" .Release.Name .Chart.Name) (contains .Chart.Name .Release.Name) -}}
{{- $name | trunc 63 | trimSuffix "-" -}}
{{- end }}

{{/* The labels by which its pod is found; they never change. */}}
{{- define "operator.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "operator.labels" -}}
{{ include "operator.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{/* The kinds that are switched on, joined by commas; none when all are off. */}}
{{- define "operator.kinds" -}}
{{- $kinds := list -}}
{{- range $kind, $on := .Values.kinds -}}
{{- if $on -}}{{- $kinds = append $kinds $kind -}}{{- end -}}
{{- end -}}
{{- join "," $kinds | default "none" -}}
{{- end }}

{{- define "operator.download-image" -}}
{{- .Values.options.defaultDownloadImage | default (printf "aim-downloader:%s" .Chart.AppVersion) -}}
{{- end }}
