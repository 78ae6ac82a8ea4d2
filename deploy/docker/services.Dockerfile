# syntax=docker/dockerfile:1
# One image a service: docker build -f deploy/docker/services.Dockerfile --target gateway -t lensmesh/gateway:0.1.0 .

FROM python:3.11-slim-bookworm AS python
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ONLY_BINARY=:all: \
    PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
WORKDIR /app

# The stubs of the contracts. Their compiler stays in this stage.
FROM python AS stubs
COPY deploy/docker/requirements/stubs.txt /requirements.txt
RUN pip install --require-hashes -r /requirements.txt
COPY protos protos
COPY services/__init__.py services/__init__.py
COPY services/mesh/__init__.py services/mesh/json_names.py services/mesh/
RUN python -m protos.build stubs

# What all services have in common. The user has no name, no home and no shell; /app belongs to root.
FROM python AS service
ENV PYTHONPATH=/app:/app/gen HOME=/tmp
LABEL org.opencontainers.image.title="lensmesh" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=stubs /app/gen gen
COPY models/sets models/sets
COPY services/__init__.py services/__init__.py
COPY services/mesh services/mesh

FROM service AS gateway
COPY deploy/docker/requirements/gateway.txt /requirements.txt
RUN pip install --require-hashes -r /requirements.txt
COPY services/gateway services/gateway
USER 65532:65532
EXPOSE 8080 9090 9464
ENTRYPOINT ["python", "-m", "services.gateway"]

# Carries Triton's canary too, which needs the same libraries and runs beside Triton: python -m runner.canary.
FROM service AS vision
COPY deploy/docker/requirements/vision.txt /requirements.txt
RUN pip install --require-hashes -r /requirements.txt
COPY runner/__init__.py runner/canary.py runner/
COPY services/vision services/vision
USER 65532:65532
EXPOSE 7101 9464
ENTRYPOINT ["python", "-m", "services.vision"]

FROM service AS embedder
COPY deploy/docker/requirements/embedder.txt /requirements.txt
RUN pip install --require-hashes -r /requirements.txt
COPY services/embedder services/embedder
USER 65532:65532
EXPOSE 7102 9464
ENTRYPOINT ["python", "-m", "services.embedder"]

FROM service AS percolator
COPY deploy/docker/requirements/percolator.txt /requirements.txt
RUN pip install --require-hashes -r /requirements.txt
COPY services/percolator services/percolator
USER 65532:65532
EXPOSE 7103 9464
ENTRYPOINT ["python", "-m", "services.percolator"]
