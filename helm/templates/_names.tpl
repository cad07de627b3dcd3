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

{{- define "connector.selector" -}}
app.kubernetes.io/name: {{ include "connector.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "connector.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "connector.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "connector.consoleName" -}}
{{- printf "%s-console" (include "connector.fullname" .) -}}
{{- end -}}

{{/* Another name than the members': no Service, monitor or budget of theirs selects the console. */}}
{{- define "connector.consoleSelector" -}}
app.kubernetes.io/name: {{ include "connector.name" . }}-console
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "connector.consoleLabels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "connector.consoleSelector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
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
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{/* The workloads: a JSON list of {name, destination, group}; destination is empty where one runs all. */}}
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

{{/* The connector's configuration as JSON: the values', or the example where there are none. */}}
{{- define "connector.given" -}}
{{- if .Values.config -}}
{{- toJson .Values.config -}}
{{- else -}}
{{- .Files.Get "example.yaml" | fromYaml | toJson -}}
{{- end -}}
{{- end -}}
