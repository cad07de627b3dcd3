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

{{/* The configuration file. JSON is YAML, and keeps whole numbers whole. */}}
{{- define "connector.config" -}}
{{- $config := include "connector.given" . | fromJson -}}
{{- $_ := set $config "server" (merge (dict) (default dict $config.server) (dict "host" "0.0.0.0" "port" 8080)) -}}
{{- if .Values.staticMembership -}}
{{- $_ := set $config.kafka.client "group.instance.id" "${POD_NAME}" -}}
{{- end -}}
{{- toPrettyJson $config -}}
{{- end -}}
