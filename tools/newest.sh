#!/usr/bin/env bash
# Runs the unit tests on the newest Python of this machine that the project supports, in an environment of its own below .tools/newest.
set -euo pipefail
cd "$(dirname "$0")/.."
oldest=$(.venv/bin/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')
# Each is asked for its version: a name in PATH may lead to no Python at all, and the newest need not be the first.
found=$(for candidate in python3.14 python3.13 python3.12 "$HOME"/.pyenv/versions/3.1[432]*/bin/python3; do
    version=$("$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2> /dev/null) || continue
    [ "$version" = "$oldest" ] || echo "$version $candidate"
done | sort -V | tail -n 1)
version=${found%% *} python=${found#* }
if [ -z "$python" ]; then
    echo "tools: this machine has no Python newer than $oldest; nothing is run" >&2
    exit 0
fi
echo "tools: the unit tests on $("$python" --version)"
copy=.tools/newest
rm -rf "$copy/source"
mkdir -p "$copy/source"
[ -x "$copy/$version/bin/python" ] || "$python" -m venv "$copy/$version"
"$copy/$version/bin/pip" install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
# A copy, because the compiled parts of both versions would stand side by side in the source.
git ls-files -z | tar --null --files-from - --create | tar --extract --directory "$copy/source"
cd "$copy/source"
../$version/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
exec ../$version/bin/python -m pytest -q -n "${WORKERS:-2}" --dist worksteal -p no:cacheprovider tests/unit "$@"
