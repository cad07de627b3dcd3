# syntax=docker/dockerfile:1
# Build: docker build --build-arg REVISION=$(git rev-parse HEAD) -t connector .
# For reproducible builds set PYTHON_IMAGE to a digest. All packages are pinned and hashed.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
# The compiler and the build backend are not in the final image.
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev
COPY requirements/expressions.txt requirements/build.txt requirements/
# --copies, because links into this stage would be broken in the next one.
RUN python -m venv --copies /opt/connector && python -m venv /opt/connector-build
RUN /opt/connector/bin/pip install --require-hashes --only-binary :all: -r requirements/expressions.txt
RUN /opt/connector-build/bin/pip install --require-hashes --only-binary :all: -r requirements/build.txt
COPY pyproject.toml hatch_build.py README.md LICENSE CHANGELOG.md ./
COPY avro avro
COPY connector connector
RUN /opt/connector-build/bin/pip wheel --no-deps --no-build-isolation --no-index --wheel-dir dist .
RUN /opt/connector/bin/pip install --no-deps --no-index dist/*.whl
RUN /opt/connector/bin/pip check
RUN /opt/connector/bin/pip uninstall --yes setuptools pip

FROM ${PYTHON_IMAGE} AS run
ARG VERSION=0.0.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="connector" \
      org.opencontainers.image.description="Delivers Avro events from Kafka topics to vendors' HTTP APIs" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# tini is process 1. Without it, a SIGTERM during Python's imports would be ignored.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends tini \
 && rm -rf /var/lib/apt/lists/* \
 && python -m pip uninstall --yes pip setuptools wheel \
 && useradd --system --uid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin connector
COPY --from=build /opt/connector /opt/connector
# Nothing is written at run time, so the root file system may be read-only.
ENV PATH=/opt/connector/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HEALTH_URL=http://localhost:8080/healthz
# A number, because Kubernetes cannot verify runAsNonRoot with a name.
USER 10001:10001
WORKDIR /etc/connector
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as u; u.build_opener(u.ProxyHandler({})).open(os.environ['HEALTH_URL'], timeout=4)"]
ENTRYPOINT ["tini", "--", "connector"]
CMD ["run", "-c", "/etc/connector/connector.yaml"]
