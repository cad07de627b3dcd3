{{/* The pod of one workload: {root, workload}. */}}
{{- define "connector.pod" -}}
{{- $root := .root -}}
{{- $values := .root.Values -}}
metadata:
  labels:
    {{- include "connector.podLabels" $root | nindent 4 }}
    {{- include "connector.selector" $root | nindent 4 }}
    app.kubernetes.io/component: {{ .workload.name }}
  annotations:
    checksum/config: {{ include "connector.restartChecksum" $root }}
    {{- with $values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  {{- include "connector.podBasics" $root | nindent 2 }}
  terminationGracePeriodSeconds: {{ int $values.terminationGracePeriodSeconds }}
  {{- with include "connector.placement" $root | trim }}
  {{- . | nindent 2 }}
  {{- end }}
  {{- with $values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  topologySpreadConstraints:
    {{- if $values.topologySpreadConstraints }}
    {{- toYaml $values.topologySpreadConstraints | nindent 4 }}
    {{- else }}
    - maxSkew: 1
      topologyKey: kubernetes.io/hostname
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "connector.selector" $root | nindent 10 }}
          app.kubernetes.io/component: {{ .workload.name }}
    {{- end }}
  {{- with $values.initContainers }}
  initContainers:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: connector
      {{- include "connector.container" $root | nindent 6 }}
      args:
        - run
        - -c
        - /etc/connector/connector.yaml
        {{- with .workload.destination }}
        - --destination
        - {{ . | quote }}
        {{- end }}
      ports:
        - name: http
          containerPort: {{ include "connector.port" $root }}
      startupProbe:
        httpGet: {path: /healthz, port: http}
        {{- with $values.startupProbe }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      livenessProbe:
        httpGet: {path: /healthz, port: http}
        {{- with $values.livenessProbe }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      readinessProbe:
        httpGet: {path: /readyz, port: http}
        {{- with $values.readinessProbe }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- with $values.lifecycle }}
      lifecycle:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      resources:
        {{- toYaml $values.resources | nindent 8 }}
    {{- with $values.extraContainers }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}

{{/* Labels of every pod, before the selector. */}}
{{- define "connector.podLabels" -}}
{{- $all := merge (dict) .Values.podLabels .Values.commonLabels -}}
{{- if $all }}{{ toYaml $all }}{{ end -}}
{{- end -}}

{{/* Where pods of the chart may run. */}}
{{- define "connector.placement" -}}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Parts of every pod: account, name resolution, security context, volumes. */}}
{{- define "connector.podBasics" -}}
serviceAccountName: {{ include "connector.serviceAccount" . }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.dnsPolicy }}
dnsPolicy: {{ . }}
{{- end }}
{{- with .Values.dnsConfig }}
dnsConfig:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.hostAliases }}
hostAliases:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.podSecurityContext }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
volumes:
  - name: config
    configMap:
      name: {{ default (include "connector.fullname" .) .configMap }}
  {{- /* Readable by all: without fsGroup the files belong to root, and the pod has one process. */}}
  {{- with include "connector.secrets" . | fromJsonArray }}
  - name: secrets
    projected:
      defaultMode: 0444
      sources:
        {{- range . }}
        - secret: {name: {{ . }}}
        {{- end }}
  {{- end }}
  {{- with .Values.extraVolumes }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{/* The names of the Secrets whose keys become files, as a JSON list. */}}
{{- define "connector.secrets" -}}
{{- $found := list -}}
{{- with .Values.existingSecret }}{{ $found = append $found . }}{{ end -}}
{{- range .Values.extraSecrets }}{{ $found = append $found . }}{{ end -}}
{{- toJson $found -}}
{{- end -}}

{{/* Parts of every container of the connector: image, variables, security context, mounts. */}}
{{- define "connector.container" -}}
image: {{ include "connector.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- with .Values.securityContext }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
env:
  - name: POD_NAME
    valueFrom:
      fieldRef: {fieldPath: metadata.name}
  {{- with .Values.env }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .Values.envFrom }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
volumeMounts:
  - name: config
    mountPath: /etc/connector
    readOnly: true
  {{- if include "connector.secrets" . | fromJsonArray }}
  - name: secrets
    mountPath: /run/secrets/connector
    readOnly: true
  {{- end }}
  {{- with .Values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}
