{{/* Seconds of a duration in the configuration: 22s, 500ms, 1.5m, 30. */}}
{{- define "connector.seconds" -}}
{{- $text := toString . | trim -}}
{{- $number := regexFind "^[0-9]+(\\.[0-9]+)?" $text | float64 -}}
{{- $unit := regexFind "(ms|s|m|h|d)?$" $text -}}
{{- $length := get (dict "ms" 0.001 "s" 1.0 "m" 60.0 "h" 3600.0 "d" 86400.0 "" 1.0) $unit -}}
{{- mulf $number $length -}}
{{- end -}}

{{/* Mebibytes of a size in the configuration (24MiB, 1GB, 1000000) or in Kubernetes (256Mi, 1Gi, 500M). */}}
{{- define "connector.mebibytes" -}}
{{- $text := toString . | trim -}}
{{- if kindIs "float64" . -}}{{- $text = printf "%.0f" . -}}{{- end -}}
{{- $number := regexFind "^[0-9]+(\\.[0-9]+)?" $text | float64 -}}
{{- $unit := regexFind "[A-Za-z]*$" $text | trimSuffix "B" -}}
{{- $size := get (dict "" 1.0 "k" 1000.0 "K" 1000.0 "Ki" 1024.0 "M" 1000000.0 "Mi" 1048576.0 "G" 1000000000.0 "Gi" 1073741824.0 "T" 1000000000000.0 "Ti" 1099511627776.0 "m" 0.001) $unit | default 1.0 -}}
{{- divf (mulf $number $size) 1048576.0 -}}
{{- end -}}

{{/* Refuses whole numbers that Helm has rounded, at any depth: {path, value}. */}}
{{- define "connector.checkNumbers" -}}
{{- $path := .path -}}
{{- if kindIs "map" .value -}}
{{- range $name, $value := .value -}}
{{- include "connector.checkNumbers" (dict "path" (printf "%s.%s" $path $name | trimPrefix ".") "value" $value) -}}
{{- end -}}
{{- else if kindIs "slice" .value -}}
{{- range $index, $value := .value -}}
{{- include "connector.checkNumbers" (dict "path" (printf "%s[%d]" $path $index) "value" $value) -}}
{{- end -}}
{{- else if or (kindIs "float64" .value) (kindIs "int64" .value) (kindIs "int" .value) -}}
{{- if or (ge (float64 .value) 9007199254740992.0) (le (float64 .value) -9007199254740992.0) -}}
{{- fail (printf "%s is a number above 2^53, which Helm rounds: write it in quotes, and under where in an expression (cel)." $path) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Refuses secrets in plain text: {path, name, value, private}. A value is secret by its name, by its
     type, or by its place: everything under `client` and `headers` is, unless its name is on the list of harmless ones. */}}
{{- define "connector.checkValue" -}}
{{- $path := .path -}}
{{- $private := .private -}}
{{- if kindIs "map" .value -}}
{{- $below := or $private (has .name (list "client" "headers")) -}}
{{- range $name, $value := .value -}}
{{- include "connector.checkValue" (dict "path" (printf "%s.%s" $path $name) "name" $name "value" $value "private" $below) -}}
{{- end -}}
{{- else if kindIs "slice" .value -}}
{{- $name := .name -}}
{{- range $index, $value := .value -}}
{{- include "connector.checkValue" (dict "path" (printf "%s[%d]" $path $index) "name" $name "value" $value "private" $private) -}}
{{- end -}}
{{- else if or (kindIs "string" .value) (kindIs "float64" .value) (kindIs "int64" .value) (kindIs "int" .value) -}}
{{- $text := toString .value -}}
{{- $harmless := has .name (include "connector.harmless" . | fromJsonArray) -}}
{{- $named := and (regexMatch (include "connector.secretName" .) .name) (not (regexMatch (include "connector.notSecretName" .) .name)) -}}
{{- $typed := has .name (include "connector.secretFields" . | fromJsonArray) -}}
{{- $secret := ternary (not $harmless) (or $named $typed) (eq (toString $private) "true") -}}
{{- $reference := regexMatch "^\\s*([^\\s:${}]*:)?\\$\\{(file:[^}]+|[A-Za-z_][A-Za-z0-9_]*)\\}\\s*$" $text -}}
{{- if and $secret (ne $text "") (not $reference) -}}
{{- fail (printf "%s contains a secret, or is not known to be harmless. Values are stored in a ConfigMap and in Helm's history. Put it into a Secret, set existingSecret to its name, and write ${file:/run/secrets/connector/KEY} here." $path) -}}
{{- end -}}
{{- if contains "PRIVATE KEY-----" $text -}}
{{- fail (printf "%s contains a private key. Put it into a Secret, and set existingSecret to its name." $path) -}}
{{- end -}}
{{- /* The password of an address may be a reference, or all that is in front of the @. The address may lack its scheme. */}}
{{- $bare := regexReplaceAll "([^:/?#@\\s$,;=]*:)?\\$\\{(file:[^}]+|[A-Za-z_][A-Za-z0-9_]*)\\}(:\\$\\{(file:[^}]+|[A-Za-z_][A-Za-z0-9_]*)\\})?@" $text "" -}}
{{- if or (regexMatch "//[^/?#@\\s]+@" $bare) (regexMatch "//[^/?#@:\\s]+:[0-9]*[^0-9/?#@][^@]*@" $bare) (regexMatch "(^|[\\s,;=])[^\\s/:@,;='\"]+:[^\\s/@,'\"]+@[A-Za-z0-9\\[]" (regexReplaceAll "\\b(mailto|sip|urn):" $bare "")) -}}
{{- fail (printf "%s contains credentials in its address. Put the address into a Secret, set existingSecret to its name, and write ${file:/run/secrets/connector/KEY} here." $path) -}}
{{- end -}}
{{- $bare = regexReplaceAll "\\$\\{(file:[^}]+|[A-Za-z_][A-Za-z0-9_]*)\\}|\\{(topic|partition|offset)\\}" $bare "" -}}
{{- if or (regexMatch "://[^?#\\s]*\\?(\\S*&)?[^=&#\\s]+(&|#|\\s|$)" $bare) (regexMatch "://[^?#\\s]*[?#]\\S*=[^&#\\s]" $bare) -}}
{{- fail (printf "%s contains a query in its address, which may be a secret. Put the address into a Secret, set existingSecret to its name, and write ${file:/run/secrets/connector/KEY} here." $path) -}}
{{- end -}}
{{- if regexMatch "(?i)(passw(or)?d|pwd|secret|token|api_?key)\"?=\"?[^=\\s;&,'\"]" $bare -}}
{{- fail (printf "%s contains a secret behind its name. Put it into a Secret, set existingSecret to its name, and write ${file:/run/secrets/connector/KEY} here." $path) -}}
{{- end -}}
{{- if and (eq .name "cel") (contains "hmac_sha256" $bare) (regexMatch "'[^']+'|\"[^\"]+\"" $bare) -}}
{{- fail (printf "%s makes an HMAC and contains a text, which may be its key. Put the key into a Secret, set existingSecret to its name, and write ${file:/run/secrets/connector/KEY} here." $path) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Refuses secrets in plain text among variables: {path, env}. Kubernetes fills in $(NAME) there. */}}
{{- define "connector.checkVariables" -}}
{{- $path := .path -}}
{{- range $index, $variable := .env -}}
{{- if hasKey $variable "value" -}}
{{- $value := regexReplaceAll "\\$\\(([A-Za-z_][A-Za-z0-9_]*)\\)" (toString $variable.value) "$${${1}}" -}}
{{- include "connector.checkValue" (dict "path" (printf "%s[%d].value (%s)" $path $index $variable.name) "name" $variable.name "value" $value "private" false) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The same among what a container starts with: {path, container}. */}}
{{- define "connector.checkContainer" -}}
{{- $path := .path -}}
{{- $container := .container -}}
{{- include "connector.checkVariables" (dict "path" (printf "%s.env" $path) "env" (default list $container.env)) -}}
{{- range $key := list "command" "args" -}}
{{- range $index, $text := default list (index $container $key) -}}
{{- $value := regexReplaceAll "\\$\\(([A-Za-z_][A-Za-z0-9_]*)\\)" (toString $text) "$${${1}}" -}}
{{- include "connector.checkValue" (dict "path" (printf "%s.%s[%d]" $path $key $index) "name" $key "value" $value "private" false) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Refuses names and places that a pod has twice. The first ones are the chart's own. */}}
{{- define "connector.checkNames" -}}
{{- $values := .Values -}}
{{- $names := list "connector" -}}
{{- range $key := list "initContainers" "extraContainers" -}}
{{- range get $values $key -}}
{{- if has .name $names -}}
{{- fail (printf "%s has a container named %s, which the pod already has: choose another name." $key .name) -}}
{{- end -}}
{{- $names = append $names .name -}}
{{- end -}}
{{- end -}}
{{- $names = list "config" "secrets" -}}
{{- range $values.extraVolumes -}}
{{- if has .name $names -}}
{{- fail (printf "extraVolumes has a volume named %s, which the pod already has: choose another name." .name) -}}
{{- end -}}
{{- $names = append $names .name -}}
{{- end -}}
{{- $places := list "/etc/connector" "/run/secrets/connector" -}}
{{- range $values.extraVolumeMounts -}}
{{- if not (has .name $names) -}}
{{- fail (printf "extraVolumeMounts has %s, which is not in extraVolumes: add the volume, or correct the name." .name) -}}
{{- end -}}
{{- $place := trimSuffix "/" (toString .mountPath) -}}
{{- if has $place $places -}}
{{- fail (printf "extraVolumeMounts has %s twice, or the chart mounts its own files there: choose another path." $place) -}}
{{- end -}}
{{- $places = append $places $place -}}
{{- end -}}
{{- end -}}

{{/* Refuses a console that no one, or everyone, could reach. */}}
{{- define "connector.checkConsole" -}}
{{- $config := include "connector.given" . | fromJson -}}
{{- $own := default dict $config.console -}}
{{- if .Values.console.enabled -}}
{{- $tokens := default dict $own.tokens -}}
{{- if not (or $tokens.look $tokens.act $own.token $own.proxy) -}}
{{- fail "console.enabled is true, and config.console has neither tokens nor a proxy: everyone who reaches the page could read dead letters. Put a token into a Secret, set existingSecret to its name, and set config.console.tokens.act to ${file:/run/secrets/connector/KEY}; tokens.look only looks. Or set config.console.proxy for sign-in by a trusted proxy." -}}
{{- end -}}
{{- if has (toString (default "::" $own.host)) (list "127.0.0.1" "localhost" "::1") -}}
{{- fail "config.console.host is a loopback address, which the console's Service cannot reach: remove it." -}}
{{- end -}}
{{- if and (hasKey $own "port") (not (regexMatch "^(102[4-9]|10[3-9][0-9]|1[1-9][0-9]{2}|[2-9][0-9]{3}|[1-9][0-9]{4})$" (toString $own.port))) -}}
{{- fail "config.console.port must be a number of at least 1024: the Service uses it, and pods do not run as root." -}}
{{- end -}}
{{- if and (not .Values.service.enabled) (not $own.members) -}}
{{- fail "service.enabled is false, so the console cannot find members: enable it, or set config.console.members." -}}
{{- end -}}
{{- if and .Values.console.ingress.enabled (not .Values.console.ingress.host) -}}
{{- fail "console.ingress.host is empty, and the console accepts only known names: set the name that people type." -}}
{{- end -}}
{{- if and .Values.console.ingress.enabled (not .Values.console.ingress.tlsSecret) (not .Values.console.ingress.allowHttp) -}}
{{- fail "console.ingress.tlsSecret is empty, so the token would cross the network unencrypted: set a Secret of type kubernetes.io/tls, or console.ingress.allowHttp: true if something else ends TLS." -}}
{{- end -}}
{{- else if .Values.console.ingress.enabled -}}
{{- fail "console.ingress.enabled is true and console.enabled is false: enable the console, or disable the Ingress." -}}
{{- end -}}
{{- end -}}

{{/* Refuses values that would fail later, with a message that says what to change. */}}
{{- define "connector.check" -}}
{{- $values := .Values -}}
{{- $config := include "connector.given" . | fromJson -}}
{{- include "connector.checkNumbers" (dict "path" "" "value" (fromJson (toJson $values))) -}}
{{- include "connector.checkValue" (dict "path" "config" "name" "config" "value" (default $config $values.config) "private" false) -}}
{{- include "connector.checkVariables" (dict "path" "env" "env" $values.env) -}}
{{- range $key := list "initContainers" "extraContainers" -}}
{{- range $index, $each := get $values $key -}}
{{- include "connector.checkContainer" (dict "path" (printf "%s[%d]" $key $index) "container" $each) -}}
{{- end -}}
{{- end -}}
{{- include "connector.checkValue" (dict "path" "autoscaling.prometheusAddress" "name" "prometheusAddress" "value" $values.autoscaling.prometheusAddress "private" false) -}}
{{- range $name, $text := $values.files -}}
{{- if contains "PRIVATE KEY-----" (toString $text) -}}
{{- fail (printf "files.%s contains a private key, and files are stored in a ConfigMap. Put it into a Secret, and set existingSecret to its name." $name) -}}
{{- end -}}
{{- end -}}
{{- $drain := toString (default "22s" (dig "limits" "drain_timeout" "22s" $config)) -}}
{{- if contains "${" $drain -}}
{{- fail "config.limits.drain_timeout is a reference and cannot be compared with terminationGracePeriodSeconds: write the duration." -}}
{{- end -}}
{{- $needed := addf (include "connector.seconds" $drain | float64) 8 | ceil | int -}}
{{- if lt (int $values.terminationGracePeriodSeconds) $needed -}}
{{- fail (printf "terminationGracePeriodSeconds is %d, but a stop may take config.limits.drain_timeout (%s) + 8 s: pods would be killed while they drain, and deliveries repeated. Set it to at least %d, or lower the drain timeout." (int $values.terminationGracePeriodSeconds) $drain $needed) -}}
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
{{- fail "autoscaling.trigger is prometheus and autoscaling.prometheusAddress is empty: set the address of Prometheus." -}}
{{- end -}}
{{- end -}}
{{- if and $values.autoscaling.enabled (eq $values.autoscaling.type "keda") (eq $values.autoscaling.trigger "kafka") (contains "${" (toString (get $config.kafka.client "bootstrap.servers"))) -}}
{{- fail "config.kafka.client.bootstrap.servers is a reference, which KEDA cannot read: write the addresses, or set autoscaling.trigger to prometheus." -}}
{{- end -}}
{{- if and $values.partitions (gt $most (int $values.partitions)) -}}
{{- fail (printf "%s is %d, but the topics have %d partitions: a member without a partition is idle. Set it to at most %d, or add partitions." $key $most (int $values.partitions) (int $values.partitions)) -}}
{{- end -}}
{{- range $name, $destination := $config.destinations -}}
{{- if and (gt $most 1) (eq (default "group" $destination.rate_limit_share) "fixed") -}}
{{- fail (printf "%s is %d and config.destinations.%s.rate_limit_share is fixed: each member would use the whole rate, together %d times what the vendor allows. Set rate_limit_share to group, or run one replica." $key $most $name $most) -}}
{{- end -}}
{{- end -}}
{{- $server := default dict $config.server -}}
{{- if has (toString (default "::" $server.host)) (list "127.0.0.1" "localhost" "::1") -}}
{{- fail "config.server.host is a loopback address, which probes and Prometheus cannot reach: remove it." -}}
{{- end -}}
{{- if and (hasKey $server "port") (not (regexMatch "^(102[4-9]|10[3-9][0-9]|1[1-9][0-9]{2}|[2-9][0-9]{3}|[1-9][0-9]{4})$" (toString $server.port))) -}}
{{- fail (printf "config.server.port is %v, and must be one number of at least 1024, not a range or a reference: probes, the Service and Prometheus use it, and pods do not run as root." $server.port) -}}
{{- end -}}
{{- if and $values.autoscaling.enabled (lt (int $values.autoscaling.minReplicas) 1) (or (eq $values.autoscaling.type "hpa") (eq $values.autoscaling.trigger "prometheus")) -}}
{{- fail "autoscaling.minReplicas is 0, but without a member there are no metrics to scale up by: set 1, or use KEDA's kafka trigger." -}}
{{- end -}}
{{- $protocol := upper (toString (default "PLAINTEXT" (get $config.kafka.client "security.protocol"))) -}}
{{- if and $values.autoscaling.enabled (eq $values.autoscaling.type "keda") (eq $values.autoscaling.trigger "kafka") (ne $protocol "PLAINTEXT") (not $values.autoscaling.authenticationRef) -}}
{{- fail (printf "config.kafka.client.security.protocol is %s, and KEDA reads the lag with its own credentials: set autoscaling.authenticationRef to a TriggerAuthentication with Kafka's credentials, or autoscaling.trigger to prometheus." $protocol) -}}
{{- end -}}
{{- include "connector.checkConsole" . -}}
{{- if and $values.networkPolicy.enabled (not $values.networkPolicy.kafka.to) (not $values.networkPolicy.egress) -}}
{{- fail "networkPolicy.enabled is true and networkPolicy.kafka.to is empty, so pods could not reach Kafka: set the peers of the brokers, or rules in networkPolicy.egress." -}}
{{- end -}}
{{- if and $values.networkPolicy.enabled $config.schema_registry (not $values.networkPolicy.registry.to) (not $values.networkPolicy.egress) -}}
{{- fail "networkPolicy.enabled is true and networkPolicy.registry.to is empty, so pods could not reach the schema registry: set its peers, or rules in networkPolicy.egress." -}}
{{- end -}}
{{- include "connector.checkPods" . -}}
{{- include "connector.checkNames" . -}}
{{- if and $values.staticMembership (hasKey $config.kafka.client "group.instance.id") -}}
{{- fail "config.kafka.client has group.instance.id, which staticMembership sets for each pod: remove it." -}}
{{- end -}}
{{- $names := list -}}
{{- range $each := include "connector.workloads" . | fromJsonArray -}}
{{- if has $each.name $names -}}
{{- fail (printf "destination %s has no unique name in Kubernetes (%s): names must differ in more than . _ and -, within the first 52 characters." $each.destination $each.name) -}}
{{- end -}}
{{- $names = append $names $each.name -}}
{{- end -}}
{{- end -}}

{{/* Refuses pods that Kubernetes would refuse, kill, or never evict. */}}
{{- define "connector.checkPods" -}}
{{- $values := .Values -}}
{{- $config := include "connector.given" . | fromJson -}}
{{- $reserved := list "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/component" -}}
{{- range $key := list "podLabels" "commonLabels" -}}
{{- range $label, $_ := get $values $key -}}
{{- if has $label $reserved -}}
{{- fail (printf "%s has %s, which the chart's selectors use: choose another label." $key $label) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $label := list "helm.sh/chart" "app.kubernetes.io/version" "app.kubernetes.io/managed-by" -}}
{{- if hasKey $values.commonLabels $label -}}
{{- fail (printf "commonLabels has %s, which the chart sets: remove it." $label) -}}
{{- end -}}
{{- end -}}
{{- if hasKey $values.podAnnotations "checksum/config" -}}
{{- fail "podAnnotations has checksum/config, which the chart sets: remove it." -}}
{{- end -}}
{{- $names := list "POD_NAME" -}}
{{- range $values.env -}}
{{- if has .name $names -}}
{{- fail (printf "env has %s twice, or the chart sets it: remove one." .name) -}}
{{- end -}}
{{- $names = append $names .name -}}
{{- end -}}
{{- $limit := dig "limits" "memory" "" $values.resources -}}
{{- $buffer := dig "limits" "buffer" "24MiB" $config -}}
{{- if and $limit (not (contains "${" (toString $buffer))) -}}
{{- $needed := addf 90.0 (mulf 1.5 (include "connector.mebibytes" $buffer | float64)) -}}
{{- if gt $needed (include "connector.mebibytes" $limit | float64) -}}
{{- fail (printf "resources.limits.memory is %s, but a member with config.limits.buffer %s may use %.0f MiB (90 MiB + 1.5 × buffer): pods would be killed. Raise the limit, or lower the buffer." (toString $limit) (kindIs "float64" $buffer | ternary (printf "%.0f" $buffer) (toString $buffer)) (ceil $needed)) -}}
{{- end -}}
{{- end -}}
{{- $budget := $values.podDisruptionBudget -}}
{{- if $budget.enabled -}}
{{- $replicas := ternary (int $values.autoscaling.minReplicas) (int $values.replicaCount) $values.autoscaling.enabled -}}
{{- if kindIs "invalid" $budget.minAvailable -}}
{{- if has (toString $budget.maxUnavailable) (list "0" "0%") -}}
{{- fail "podDisruptionBudget.maxUnavailable is 0, so no pod could ever be evicted and nodes not drained: set at least 1." -}}
{{- end -}}
{{- else if or (eq (toString $budget.minAvailable) "100%") (and (not (kindIs "string" $budget.minAvailable)) (gt $replicas 0) (ge (int $budget.minAvailable) $replicas)) -}}
{{- fail (printf "podDisruptionBudget.minAvailable is %s with %d replicas, so no pod could ever be evicted and nodes not drained: lower it, or run more replicas." (toString $budget.minAvailable) $replicas) -}}
{{- end -}}
{{- end -}}
{{- if and $values.staticMembership (not $values.service.enabled) -}}
{{- fail "staticMembership is true and service.enabled is false, but a StatefulSet needs its Service: enable it." -}}
{{- end -}}
{{- if and $values.autoscaling.enabled (eq $values.autoscaling.type "hpa") (not (dig "requests" "cpu" "" $values.resources)) -}}
{{- fail "autoscaling.type is hpa and resources.requests.cpu is empty, but the utilisation is a share of the request: set it." -}}
{{- end -}}
{{- end -}}

{{/* The port of the member. */}}
{{- define "connector.port" -}}
{{- dig "server" "port" 8080 (include "connector.given" . | fromJson) | int -}}
{{- end -}}

{{/* The files of the ConfigMap. */}}
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

{{/* Changes with what members need a restart for. What a reload applies is left out: they read the mounted file again. */}}
{{- define "connector.restartChecksum" -}}
{{- $config := include "connector.config" . | fromJson -}}
{{- if $config.reload.watch -}}
{{- $fixed := dict -}}
{{- range $name, $destination := $config.destinations -}}
{{- $_ := set $fixed $name (pick $destination "vendor" "order" "max_in_flight" "http" "traceparent" "results_topic") -}}
{{- end -}}
{{- $events := dig "console" "events_topic" "" $config -}}
{{- $config = merge (dict "destinations" $fixed "events" $events) (omit $config "destinations" "routes" "unrouted" "console") -}}
{{- $_ := set $config "server" (omit $config.server "token" "hosts") -}}
{{- $_ := set $config "log" (omit (default dict $config.log) "level" "sample") -}}
{{- end -}}
{{- printf "%s%s" (toJson $config) (toJson .Values.files) | sha256sum -}}
{{- end -}}

{{/* The configuration file. JSON is valid YAML, and keeps whole numbers whole. */}}
{{- define "connector.config" -}}
{{- $config := include "connector.given" . | fromJson -}}
{{- $_ := set $config "server" (merge (dict) (default dict $config.server) (dict "host" "::" "port" 8080)) -}}
{{- /* A browser or a person in the cluster may ask by the Service's name; NAME.NAMESPACE could also be a public domain. */}}
{{- $full := include "connector.fullname" . -}}
{{- $hosts := concat (default list $config.server.hosts) (list $full (printf "%s.%s" $full .Release.Namespace)) -}}
{{- $_ := set $config.server "hosts" (uniq $hosts) -}}
{{- /* Not by merge, which takes false for missing. */}}
{{- $_ := set $config "reload" (ternary (default dict $config.reload) (dict "watch" true) (hasKey (default dict $config.reload) "watch")) -}}
{{- if .Values.staticMembership -}}
{{- $_ := set $config.kafka.client "group.instance.id" "${POD_NAME}" -}}
{{- end -}}
{{- if .Values.console.enabled -}}
{{- $ingress := .Values.console.ingress -}}
{{- $service := include "connector.consoleName" . -}}
{{- $names := list $service (printf "%s.%s" $service .Release.Namespace) (printf "%s.%s.svc" $service .Release.Namespace) -}}
{{- $own := dict "host" "::" "port" 8090 "hosts" (ternary (concat (prepend $ingress.extraHosts $ingress.host) $names) $names $ingress.enabled) -}}
{{- $_ := set $own "members" (list (printf "http://%s:%s" (include "connector.fullname" .) (include "connector.port" .))) -}}
{{- $_ := set $config "console" (merge (dict) (default dict $config.console) $own) -}}
{{- end -}}
{{- toPrettyJson $config -}}
{{- end -}}
