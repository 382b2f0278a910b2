# The service with its local engine: it starts workers in its own container, so the trainer is installed, too.
FROM python:3.11-slim-bookworm

# Arguments for installing torch, for example another index: --build-arg TORCH_ARGS="--index-url ..."
ARG TORCH_ARGS=""

ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1

WORKDIR /build
COPY constraints.txt ./
RUN pip install ${TORCH_ARGS} -c constraints.txt torch==2.13.0

COPY pyproject.toml README.md LICENSE ./
COPY orchestrator orchestrator
COPY trainer trainer
COPY migrations migrations
COPY configs configs
RUN pip install -c constraints.txt ".[trainer,text,postgres,gpu]" && rm -rf /build/*

RUN useradd --system --uid 10001 --create-home assay \
    && install --directory --owner assay --group assay /data
USER assay
WORKDIR /data
ENV ASSAY_HOME=/data
VOLUME /data
EXPOSE 8700

HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=5 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8700/readyz', timeout=4)"]

# Listens on loopback until ASSAY_HOST and ASSAY_TOKEN are set. Run it with an init process (--init).
# SIGHUP restarts the service alone: its workers live in this container and go on.
CMD ["assay", "serve", "--keep"]
