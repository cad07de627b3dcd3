#!/usr/bin/env bash
# Fetches the servers for tests and benchmarks into .tools/ with Maven: Apache Kafka's jars, Apicurio Registry, the
# tools of Apache Avro, and JPush's client for Java. Idempotent: the right version is kept. Without Maven it prints a message and changes nothing;
# tests that need a server are then skipped, or fail if CI=true.
set -euo pipefail
cd "$(dirname "$0")/.."
tools=$PWD/.tools
plugin=org.apache.maven.plugins:maven-dependency-plugin:3.8.1
registry=3.3.3
# 1.12.0 reads arrays of doubles as floats, 1.12.1 writes a float -0.0 as 0.0.
avro=1.11.4

have() { [ "$(cat "$tools/$1/.stamp" 2>/dev/null)" = "$2" ]; }
stamp() { echo "$2" > "$tools/$1/.stamp"; }

kafka=$(cksum < tools/kafka/pom.xml)
jpush=$(cksum < tools/jpush/pom.xml)
if have kafka "$kafka" && have registry "$registry" && have avro "$avro" && have jpush "$jpush"; then exit 0; fi
if ! command -v mvn > /dev/null; then
    echo "tools: Maven (mvn) is not installed; Apache Kafka and the registry are not fetched" >&2
    [ "${CI:-}" != true ] || exit 1
    exit 0
fi
mkdir -p "$tools"
log=$tools/install.log
fetch() {
    mvn --quiet --batch-mode "$@" > "$log" 2>&1 || { tail -n 20 "$log" >&2; echo "tools: mvn failed, see above" >&2; exit 1; }
}
if ! have kafka "$kafka"; then
    echo "tools: fetching Apache Kafka (about a minute)"
    rm -rf "$tools/kafka"
    fetch -f tools/kafka/pom.xml "$plugin:copy-dependencies" -DincludeScope=runtime -DoutputDirectory="$tools/kafka"
    stamp kafka "$kafka"
fi
if ! have registry "$registry"; then
    echo "tools: fetching Apicurio Registry (about a minute)"
    rm -rf "$tools/registry"
    mkdir -p "$tools/registry"
    fetch -f tools/kafka/pom.xml "$plugin:copy" -Dartifact="io.apicurio:apicurio-registry-app:$registry:tar.gz:all" \
        -DoutputDirectory="$tools/registry"
    tar -xzf "$tools"/registry/*.tar.gz -C "$tools/registry"
    rm -f "$tools"/registry/*.tar.gz
    stamp registry "$registry"
fi
if ! have avro "$avro"; then
    echo "tools: fetching the tools of Apache Avro (about half a minute)"
    rm -rf "$tools/avro"
    mkdir -p "$tools/avro"
    fetch -f tools/kafka/pom.xml "$plugin:copy" -Dartifact="org.apache.avro:avro-tools:$avro" -DoutputDirectory="$tools/avro"
    stamp avro "$avro"
fi
if ! have jpush "$jpush"; then
    echo "tools: fetching JPush's client for Java (under a minute)"
    rm -rf "$tools/jpush"
    fetch -f tools/jpush/pom.xml "$plugin:copy-dependencies" -DincludeScope=runtime -DoutputDirectory="$tools/jpush"
    stamp jpush "$jpush"
fi
