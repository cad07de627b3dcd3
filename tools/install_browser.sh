#!/usr/bin/env bash
# Installs the browser for the console's tests: Debian's Chromium and a font with Chinese characters.
# Idempotent. Only root can install packages; others get a message, and the tests are skipped. With CI=true it fails.
set -euo pipefail

missing=()
command -v chromium > /dev/null || [ -x "${CHROMIUM:-/usr/bin/chromium}" ] || missing+=(chromium)
fc-list ":lang=zh" 2> /dev/null | grep -q . || missing+=(fonts-wqy-zenhei)
[ ${#missing[@]} -gt 0 ] || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
    echo "tools: installing ${missing[*]} (about a minute)"
    log=$(mktemp)
    trap 'rm -f "$log"' EXIT
    export DEBIAN_FRONTEND=noninteractive
    if { apt-get -qq update && apt-get -qq install --yes --no-install-recommends "${missing[@]}"; } > "$log" 2>&1; then exit 0; fi
    tail -n 20 "$log" >&2
fi
echo "tools: the console is not tested in a browser; not installed: ${missing[*]}" >&2
[ "${CI:-}" != true ] || exit 1
