# Two stages: the first installs from the lock files, the second holds Python, the installed server and nothing that builds.
# Settings, secrets and an SQLite database live in the volume, beside one another as `authz-server init` makes them.
# A tag can be moved; deployments name the base by its digest, which `make image` looks up and passes on:
#   docker build --build-arg PYTHON_IMAGE=python:3.13-slim@sha256:... .
ARG PYTHON_IMAGE=python:3.13-slim

FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_NO_INPUT=1
WORKDIR /build
COPY requirements/backends.txt requirements/build.txt requirements/
RUN python -m venv --without-pip /opt/authz-server \
 && python -m pip --python /opt/authz-server/bin/python install \
    --require-hashes --only-binary :all: -r requirements/backends.txt
RUN python -m venv --without-pip /opt/build \
 && python -m pip --python /opt/build/bin/python install \
    --require-hashes --only-binary :all: -r requirements/build.txt
COPY requirements/run.txt requirements/
COPY pyproject.toml README.md CHANGELOG.md SECURITY.md LICENSE config.example.toml ./
COPY deploy deploy
COPY docs docs
COPY authz_server authz_server
COPY keys keys
COPY plugins plugins
RUN /opt/build/bin/python -m hatchling build -t wheel -d dist \
 && python -m pip --python /opt/authz-server/bin/python install --no-index --no-deps dist/*.whl

FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="authz-server" \
      org.opencontainers.image.description="OAuth 2.0 authorization server for machines" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN python -m pip uninstall --yes --quiet --root-user-action ignore pip \
 && groupadd --gid 10001 authz-server \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin authz-server \
 && install -d -o 10001 -g 10001 -m 0700 /var/lib/authz-server
COPY --from=build /opt/authz-server /opt/authz-server
ENV PATH=/opt/authz-server/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /var/lib/authz-server
USER 10001:10001
VOLUME ["/var/lib/authz-server"]
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
  CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8081/health/live', timeout=2)"]
ENTRYPOINT ["authz-server"]
CMD ["serve"]
