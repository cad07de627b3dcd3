{{- define "connector.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "connector.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "connector.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "connector.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Selects the members. */}}
{{- define "connector.selector" -}}
app.kubernetes.io/name: {{ include "connector.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* Labels of every resource, without the selector. */}}
{{- define "connector.commonLabels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "connector.labels" -}}
{{ include "connector.commonLabels" . }}
{{ include "connector.selector" . }}
{{- end -}}

{{/* Annotations of one resource: {root, own}; own ones win over commonAnnotations. Empty text if there are none. */}}
{{- define "connector.annotations" -}}
{{- $all := merge (dict) (default dict .own) .root.Values.commonAnnotations -}}
{{- if $all -}}
annotations:
  {{- toYaml $all | nindent 2 }}
{{- end -}}
{{- end -}}

{{- define "connector.consoleName" -}}
{{- printf "%s-console" (include "connector.fullname" .) -}}
{{- end -}}

{{/* A different name from the members', so that none of their Services, monitors or budgets selects the console. */}}
{{- define "connector.consoleSelector" -}}
app.kubernetes.io/name: {{ include "connector.name" . }}-console
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "connector.consoleLabels" -}}
{{ include "connector.commonLabels" . }}
{{ include "connector.consoleSelector" . }}
{{- end -}}

{{/* Selects the pods of the hooks: the topics Job and the test. */}}
{{- define "connector.hookSelector" -}}
app.kubernetes.io/name: {{ include "connector.name" . }}-hook
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "connector.hookLabels" -}}
{{ include "connector.commonLabels" . }}
{{ include "connector.hookSelector" . }}
{{- end -}}

{{- define "connector.consolePort" -}}
{{- dig "console" "port" 8090 (include "connector.given" . | fromJson) | int -}}
{{- end -}}

{{- define "connector.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "connector.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "connector.image" -}}
{{- $image := .Values.image -}}
{{- $name := ternary $image.repository (printf "%s/%s" (trimSuffix "/" $image.registry) $image.repository) (empty $image.registry) -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $name $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $name (default .Chart.AppVersion $image.tag) -}}
{{- end -}}
{{- end -}}

{{/* The workloads: a JSON list of {name, destination, group}; destination is empty if one workload runs all. */}}
{{- define "connector.workloads" -}}
{{- $full := include "connector.fullname" . -}}
{{- $config := include "connector.given" . | fromJson -}}
{{- $group := $config.kafka.group_id -}}
{{- $found := list -}}
{{- if .Values.perDestination -}}
{{- range $name, $_ := $config.destinations -}}
{{- $plain := printf "%s-%s" $full ($name | replace "_" "-" | replace "." "-") | trunc 52 | trimSuffix "-" -}}
{{- $found = append $found (dict "name" $plain "destination" $name "group" (printf "%s.%s" $group $name)) -}}
{{- end -}}
{{- else -}}
{{- $found = append $found (dict "name" $full "destination" "" "group" $group) -}}
{{- end -}}
{{- toJson $found -}}
{{- end -}}

{{/* The connector's configuration as JSON: the value, or the example if it is empty. */}}
{{- define "connector.given" -}}
{{- if .Values.config -}}
{{- toJson .Values.config -}}
{{- else -}}
{{- .Files.Get "example.yaml" | fromYaml | toJson -}}
{{- end -}}
{{- end -}}
