#!/usr/bin/env bash
# Builds Toxiproxy with Go into .tools/bin. Idempotent. Without Go it prints a message; the tests that break connections are
# then skipped, or fail if CI=true.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=$PWD/.tools/bin
version=v2.5.0
mkdir -p "$bin"

if [ "$(cat "$bin/toxiproxy.stamp" 2> /dev/null)" = "$version" ] && [ -x "$bin/toxiproxy" ]; then exit 0; fi
if ! command -v go > /dev/null; then
    echo "tools: Go is not installed; Toxiproxy is not built" >&2
    [ "${CI:-}" != true ] || exit 1
    exit 0
fi
echo "tools: building Toxiproxy (about a minute)"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
GOBIN=$folder go install "github.com/Shopify/toxiproxy/v2/cmd/server@$version" > "$bin/toxiproxy.log" 2>&1 \
    || { tail -n 20 "$bin/toxiproxy.log" >&2; echo "tools: Toxiproxy cannot be built, see above" >&2; exit 1; }
mv "$folder/server" "$bin/toxiproxy"
echo "$version" > "$bin/toxiproxy.stamp"
