{{/* Seconds of a duration as the configuration writes it: 22s, 500ms, 1.5m, 30. */}}
{{- define "connector.seconds" -}}
{{- $text := toString . | trim -}}
{{- $number := regexFind "^[0-9]+(\\.[0-9]+)?" $text | float64 -}}
{{- $unit := regexFind "(ms|s|m|h|d)?$" $text -}}
{{- $length := get (dict "ms" 0.001 "s" 1.0 "m" 60.0 "h" 3600.0 "d" 86400.0 "" 1.0) $unit -}}
{{- mulf $number $length -}}
{{- end -}}

{{/* Fails where a text that names a secret holds one: {path, name, value}. */}}
{{- define "connector.checkSecrets" -}}
{{- $path := .path -}}
{{- if kindIs "map" .value -}}
{{- range $name, $value := .value -}}
{{- include "connector.checkSecrets" (dict "path" (printf "%s.%s" $path $name) "name" $name "value" $value) -}}
{{- end -}}
{{- else if kindIs "slice" .value -}}
{{- $name := .name -}}
{{- range $index, $value := .value -}}
{{- include "connector.checkSecrets" (dict "path" (printf "%s[%d]" $path $index) "name" $name "value" $value) -}}
{{- end -}}
{{- else if or (kindIs "string" .value) (kindIs "float64" .value) (kindIs "int64" .value) -}}
{{- $text := toString .value -}}
{{- $secret := regexMatch "(?i)secret|passw|token|authorization|credential|cookie|signature|auth\\.user\\.info|(^|[._-])(pw|jaas|app_?key|api_?key|access_?key|private_?key|key_pem|key\\.pem|keystore\\.pem|auth)$" .name -}}
{{- $about := regexMatch "(?i)(endpoint\\.url|_url|location|timeout\\.ms|\\.type|_file|scope)$" .name -}}
{{- $reference := regexMatch "^\\s*([^\\s:${}]*:)?\\$\\{(file:[^}]+|[A-Za-z_][A-Za-z0-9_]*)\\}\\s*$" $text -}}
{{- if and $secret (not $about) (ne $text "") (not $reference) -}}
{{- fail (printf "%s holds a secret itself, and values end up in a ConfigMap and in Helm's history. Put it into a Secret, name that in existingSecret, and write ${file:/run/secrets/connector/KEY} here." $path) -}}
{{- end -}}
{{- if regexMatch "://[^/@\\s$]*:[^/@\\s$]+@" $text -}}
{{- fail (printf "%s has a password in its address. Put the address into a Secret, name that in existingSecret, and write ${file:/run/secrets/connector/KEY} here." $path) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Refuses a console that nobody could reach, or everybody. */}}
{{- define "connector.checkConsole" -}}
{{- $config := include "connector.given" . | fromJson -}}
{{- $own := default dict $config.console -}}
{{- if .Values.console.enabled -}}
{{- if not $own.token -}}
{{- fail "console.enabled serves dead letters to whoever reaches the page, and config.console.token is empty: put a token into a Secret, name that in existingSecret, and write ${file:/run/secrets/connector/KEY} there." -}}
{{- end -}}
{{- if has (toString (default "0.0.0.0" $own.host)) (list "127.0.0.1" "localhost" "::1") -}}
{{- fail "config.console.host is a loopback address, which the console's Service cannot reach: leave it out." -}}
{{- end -}}
{{- if and (hasKey $own "port") (or (contains "${" (toString $own.port)) (lt (int $own.port) 1024)) -}}
{{- fail "config.console.port has to be a number from 1024: the Service points to it, and pods do not run as root." -}}
{{- end -}}
{{- if and (not .Values.service.enabled) (not $own.members) -}}
{{- fail "service.enabled is false, so the console would find no member: enable it, or set config.console.members." -}}
{{- end -}}
{{- if and .Values.console.ingress.enabled (not .Values.console.ingress.host) -}}
{{- fail "console.ingress.host is empty, and the console answers only to names that it knows: give the name that people type." -}}
{{- end -}}
{{- else if .Values.console.ingress.enabled -}}
{{- fail "console.ingress.enabled is true and console.enabled is false: enable the console, or no Ingress." -}}
{{- end -}}
{{- end -}}

{{/* Refuses, with a sentence, what would start and then go wrong. */}}
{{- define "connector.check" -}}
{{- $values := .Values -}}
{{- $config := include "connector.given" . | fromJson -}}
{{- include "connector.checkSecrets" (dict "path" "config" "name" "config" "value" $config) -}}
{{- range $index, $variable := $values.env -}}
{{- if hasKey $variable "value" -}}
{{- include "connector.checkSecrets" (dict "path" (printf "env[%d].value (%s)" $index $variable.name) "name" $variable.name "value" $variable.value) -}}
{{- end -}}
{{- end -}}
{{- $drain := toString (default "22s" (dig "limits" "drain_timeout" "22s" $config)) -}}
{{- if contains "${" $drain -}}
{{- fail "config.limits.drain_timeout is a reference, so terminationGracePeriodSeconds cannot be compared with it: write the duration itself." -}}
{{- end -}}
{{- $needed := addf (include "connector.seconds" $drain | float64) 8 | ceil | int -}}
{{- if lt (int $values.terminationGracePeriodSeconds) $needed -}}
{{- fail (printf "terminationGracePeriodSeconds is %d, and a stop may take config.limits.drain_timeout (%s) + 8 s: pods would be killed while they drain, and deliveries repeated. Set it to at least %d, or lower the drain time." (int $values.terminationGracePeriodSeconds) $drain $needed) -}}
{{- end -}}
{{- $most := int $values.replicaCount -}}
{{- $key := "replicaCount" -}}
{{- if $values.autoscaling.enabled -}}
{{- $most = int $values.autoscaling.maxReplicas -}}
{{- $key = "autoscaling.maxReplicas" -}}
{{- if lt $most (int $values.autoscaling.minReplicas) -}}
{{- fail "autoscaling.maxReplicas is below autoscaling.minReplicas: raise it." -}}
{{- end -}}
{{- if and (eq $values.autoscaling.type "keda") (eq $values.autoscaling.trigger "prometheus") (not $values.autoscaling.prometheusAddress) -}}
{{- fail "autoscaling.trigger is prometheus, and autoscaling.prometheusAddress is empty: give the address of Prometheus." -}}
{{- end -}}
{{- end -}}
{{- if and $values.autoscaling.enabled (eq $values.autoscaling.type "keda") (eq $values.autoscaling.trigger "kafka") (contains "${" (toString (get $config.kafka.client "bootstrap.servers"))) -}}
{{- fail "config.kafka.client.bootstrap.servers is a reference, which KEDA cannot read: write the addresses themselves, or set autoscaling.trigger to prometheus." -}}
{{- end -}}
{{- if and $values.partitions (gt $most (int $values.partitions)) -}}
{{- fail (printf "%s is %d, and the topics have %d partitions: a member without a partition does nothing. Set it to %d or less, or add partitions." $key $most (int $values.partitions) (int $values.partitions)) -}}
{{- end -}}
{{- range $name, $destination := $config.destinations -}}
{{- if and (gt $most 1) (eq (default "group" $destination.rate_limit_share) "fixed") -}}
{{- fail (printf "%s is %d, and config.destinations.%s.rate_limit_share is fixed: each member would take the whole rate, %d times what the vendor allows. Leave rate_limit_share at group, or run one replica." $key $most $name $most) -}}
{{- end -}}
{{- end -}}
{{- $server := default dict $config.server -}}
{{- if has (toString (default "0.0.0.0" $server.host)) (list "127.0.0.1" "localhost" "::1") -}}
{{- fail "config.server.host is a loopback address, which probes and Prometheus cannot reach: leave it out." -}}
{{- end -}}
{{- if and (hasKey $server "port") (or (contains "${" (toString $server.port)) (lt (int $server.port) 1024)) -}}
{{- fail "config.server.port has to be a number from 1024: pods are probed there, and do not run as root." -}}
{{- end -}}
{{- if and $values.autoscaling.enabled (lt (int $values.autoscaling.minReplicas) 1) (or (eq $values.autoscaling.type "hpa") (eq $values.autoscaling.trigger "prometheus")) -}}
{{- fail "autoscaling.minReplicas is 0, and without a member nobody serves the metrics that would start one: set 1, or scale by KEDA's kafka trigger." -}}
{{- end -}}
{{- $protocol := upper (toString (default "PLAINTEXT" (get $config.kafka.client "security.protocol"))) -}}
{{- if and $values.autoscaling.enabled (eq $values.autoscaling.type "keda") (eq $values.autoscaling.trigger "kafka") (ne $protocol "PLAINTEXT") (not $values.autoscaling.authenticationRef) -}}
{{- fail (printf "config.kafka.client.security.protocol is %s, and KEDA reads the lag by itself: name a TriggerAuthentication with Kafka's credentials in autoscaling.authenticationRef, or set autoscaling.trigger to prometheus." $protocol) -}}
{{- end -}}
{{- include "connector.checkConsole" . -}}
{{- if and $values.networkPolicy.enabled (not $values.networkPolicy.egress) -}}
{{- fail "networkPolicy.egress is empty, so pods could reach DNS and vendors and not Kafka: name where Kafka and the registry are." -}}
{{- end -}}
{{- if and $values.staticMembership (hasKey $config.kafka.client "group.instance.id") -}}
{{- fail "config.kafka.client has group.instance.id, which staticMembership sets for each pod: leave it out." -}}
{{- end -}}
{{- $names := list -}}
{{- range $each := include "connector.workloads" . | fromJsonArray -}}
{{- if has $each.name $names -}}
{{- fail (printf "destination %s has no name of its own in Kubernetes (%s): names may not differ only in . _ and -, or after 52 characters." $each.destination $each.name) -}}
{{- end -}}
{{- $names = append $names $each.name -}}
{{- end -}}
{{- end -}}

{{/* The port of the member. */}}
{{- define "connector.port" -}}
{{- dig "server" "port" 8080 (include "connector.given" . | fromJson) | int -}}
{{- end -}}

{{/* The files of the ConfigMap, and what changes with them. */}}
{{- define "connector.files" -}}
connector.yaml: |
  {{- include "connector.config" . | nindent 2 }}
{{- range $name, $text := .Values.files }}
{{ $name }}: {{ $text | quote }}
{{- end }}
{{- end -}}

{{- define "connector.checksum" -}}
{{- printf "%s%s" (include "connector.config" .) (toJson .Values.files) | sha256sum -}}
{{- end -}}

{{/* The configuration file. JSON is YAML, and keeps whole numbers whole. */}}
{{- define "connector.config" -}}
{{- $config := include "connector.given" . | fromJson -}}
{{- $_ := set $config "server" (merge (dict) (default dict $config.server) (dict "host" "0.0.0.0" "port" 8080)) -}}
{{- if .Values.staticMembership -}}
{{- $_ := set $config.kafka.client "group.instance.id" "${POD_NAME}" -}}
{{- end -}}
{{- if .Values.console.enabled -}}
{{- $ingress := .Values.console.ingress -}}
{{- $service := include "connector.consoleName" . -}}
{{- $names := list $service (printf "%s.%s" $service .Release.Namespace) (printf "%s.%s.svc" $service .Release.Namespace) -}}
{{- $own := dict "host" "0.0.0.0" "port" 8090 "hosts" (ternary (prepend $names $ingress.host) $names $ingress.enabled) -}}
{{- $_ := set $own "members" (list (printf "http://%s:%s" (include "connector.fullname" .) (include "connector.port" .))) -}}
{{- $_ := set $config "console" (merge (dict) (default dict $config.console) $own) -}}
{{- end -}}
{{- toPrettyJson $config -}}
{{- end -}}
