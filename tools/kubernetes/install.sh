#!/usr/bin/env bash
# Builds .tools/bin/kubernetes, a control plane in one program, for the test of the chart on a real API server. Needs Go.
set -euo pipefail
cd "$(dirname "$0")/../.."
bin=$PWD/.tools/bin
wanted=$(cat tools/kubernetes/install.sh tools/kubernetes/main.go tools/kubernetes/go.mod tools/kubernetes/go.sum | sha256sum)
[ "$(cat "$bin/kubernetes.stamp" 2> /dev/null)" != "$wanted" ] || exit 0
command -v go > /dev/null || { echo "tools: Go is not installed; Kubernetes is not built" >&2; exit 1; }
mkdir -p "$bin"
echo "tools: building Kubernetes (20 minutes on two cores, once; 3 GB in Go's cache)"
cd tools/kubernetes
version=$(go list -m -f '{{.Version}}' k8s.io/kubernetes)
# One package at a time: the largest needs 2 GB.
go build -p 1 -trimpath -ldflags "-s -w -X k8s.io/component-base/version.gitVersion=$version" -o "$bin/kubernetes" . > "$bin/kubernetes.log" 2>&1 \
    || { tail -n 20 "$bin/kubernetes.log" >&2; echo "tools: Kubernetes cannot be built, see above" >&2; exit 1; }
echo "$wanted" > "$bin/kubernetes.stamp"
