# syntax=docker/dockerfile:1
# The connector as an image: `docker build --build-arg REVISION=$(git rev-parse HEAD) -t connector .`
# Pin PYTHON_IMAGE to a digest where the same bytes are wanted every time; all packages are pinned and hashed.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
# A C compiler makes decoding many times as fast; it stays behind in this stage.
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev
COPY requirements/runtime.txt requirements/runtime.txt
# --copies: the environment must not point into this stage. The build backend is in the same hashed file.
RUN python -m venv --copies /opt/connector
RUN /opt/connector/bin/pip install --require-hashes --only-binary :all: -r requirements/runtime.txt
COPY pyproject.toml hatch_build.py README.md LICENSE CHANGELOG.md ./
COPY avro avro
COPY connector connector
RUN CONNECTOR_COMPILE=require /opt/connector/bin/pip install --no-deps --no-build-isolation --no-index .
# What only building needs does not run in production. pip goes last, by its own hand.
RUN /opt/connector/bin/pip uninstall --yes Cython hatchling pathspec pluggy tomlkit trove-classifiers
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
# tini is process 1: a SIGTERM that comes while Python still imports ends the process instead of being ignored.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends tini \
 && rm -rf /var/lib/apt/lists/* \
 && python -m pip uninstall --yes pip setuptools wheel \
 && useradd --system --uid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin connector
COPY --from=build /opt/connector /opt/connector
# Nothing is written at run time: the root file system may be read-only.
ENV PATH=/opt/connector/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HEALTH_URL=http://127.0.0.1:8080/healthz
# A number, so that Kubernetes can see that it is not root.
USER 10001:10001
WORKDIR /etc/connector
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen(os.environ['HEALTH_URL'], timeout=4)"]
ENTRYPOINT ["tini", "--", "connector"]
CMD ["run", "-c", "/etc/connector/connector.yaml"]
