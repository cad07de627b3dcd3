#!/usr/bin/env bash
# Puts the programs for the chart's tests into .tools/bin: Helm and actionlint (for the workflows) built with Go; promtool and Prometheus unpacked from Debian's package.
# Puts the custom resource definitions of KEDA and the Prometheus operator, from their Go modules, into .tools/crds.
# Idempotent. If a program cannot be fetched, it prints a message and the tests are skipped; without Helm they fail if CI=true.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=$PWD/.tools/bin
helm=v3.22.0
actionlint=v1.7.7
keda=github.com/kedacore/keda/v2@v2.21.0
operator=github.com/prometheus-operator/prometheus-operator@v0.85.0
crds=$PWD/.tools/crds
mkdir -p "$bin" "$crds"

if [ "$(cat "$bin/helm.stamp" 2> /dev/null)" != "$helm" ]; then
    if ! command -v go > /dev/null; then
        echo "tools: Go is not installed; Helm is not built" >&2
        [ "${CI:-}" != true ] || exit 1
    else
        echo "tools: building Helm (two to three minutes)"
        GOBIN=$bin go install "helm.sh/helm/v3/cmd/helm@$helm" > "$bin/helm.log" 2>&1 \
            || { tail -n 20 "$bin/helm.log" >&2; echo "tools: Helm cannot be built, see above" >&2; exit 1; }
        echo "$helm" > "$bin/helm.stamp"
    fi
fi

if [ "$(cat "$bin/actionlint.stamp" 2> /dev/null)" != "$actionlint" ] && command -v go > /dev/null; then
    GOBIN=$bin go install "github.com/rhysd/actionlint/cmd/actionlint@$actionlint" > "$bin/actionlint.log" 2>&1 \
        || { tail -n 20 "$bin/actionlint.log" >&2; echo "tools: actionlint cannot be built, see above" >&2; exit 1; }
    echo "$actionlint" > "$bin/actionlint.stamp"
fi

# The folder of a module in Go's cache, downloaded if it is not there.
module() { go mod download -json "$1" 2>&1 | tee -a "$bin/crds.log" | sed -n 's/^.*"Dir": "\(.*\)",*$/\1/p'; }

if [ "$(cat "$crds/stamp" 2> /dev/null)" != "$keda $operator" ] && command -v go > /dev/null; then
    : > "$bin/crds.log"
    if keda_folder=$(module "$keda") && operator_folder=$(module "$operator"); then
        install -m 644 "$keda_folder/config/crd/bases/keda.sh_scaledobjects.yaml" "$crds/ScaledObject.yaml"
        for kind in PodMonitor PrometheusRule; do
            install -m 644 "$operator_folder/example/prometheus-operator-crd/monitoring.coreos.com_${kind,,}s.yaml" "$crds/$kind.yaml"
        done
        echo "$keda $operator" > "$crds/stamp"
    else
        tail -n 20 "$bin/crds.log" >&2
        echo "tools: the definitions of KEDA and the Prometheus operator cannot be downloaded, see above" >&2
        [ "${CI:-}" != true ] || exit 1
    fi
fi

lacking=""
for program in promtool prometheus; do
    [ -x "$bin/$program" ] || command -v "$program" > /dev/null || lacking="$lacking $program"
done
if [ -n "$lacking" ]; then
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
    if command -v apt-get > /dev/null && command -v dpkg > /dev/null \
        && (cd "$folder" && apt-get -qq download prometheus && dpkg -x prometheus_*.deb .) > "$bin/prometheus.log" 2>&1; then
        for program in $lacking; do cp "$folder/usr/bin/$program" "$bin/$program"; done
    else
        echo "tools: cannot fetch Debian's package prometheus; the tests of alerts and dashboard are skipped" >&2
    fi
fi
