#!/usr/bin/env bash
# Brings what the tests of the console's page look at it with: Debian's Chromium and a font with Chinese letters.
# Idempotent. Only root can install packages, so elsewhere it says what to install, and the tests skip; with CI=true it fails.
set -euo pipefail

missing=()
command -v chromium > /dev/null || [ -x "${CHROMIUM:-/usr/bin/chromium}" ] || missing+=(chromium)
fc-list ":lang=zh" 2> /dev/null | grep -q . || missing+=(fonts-wqy-zenhei)
[ ${#missing[@]} -gt 0 ] || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
    log=$(mktemp)
    trap 'rm -f "$log"' EXIT
    export DEBIAN_FRONTEND=noninteractive
    if { apt-get -qq update && apt-get -qq install --yes --no-install-recommends "${missing[@]}"; } > "$log" 2>&1; then exit 0; fi
    tail -n 20 "$log" >&2
fi
echo "tools: not installed, so the console's page is not tested in a browser: ${missing[*]}" >&2
[ "${CI:-}" != true ] || exit 1
