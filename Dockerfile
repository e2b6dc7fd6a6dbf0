# docker build --target cpu -t fluoronav:cpu .        the pipeline on an ordinary computer
# docker build --target gpu -t fluoronav:gpu .        with ONNX Runtime for CUDA, TensorRT and TensorRT-RTX
# docker run --rm --network host -v /srv/or1:/or1:ro fluoronav:cpu run /or1/launch.yaml

ARG PYTHON=3.11

# Wheels are built here; no compiler reaches the images below.
FROM python:${PYTHON}-slim AS wheels
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY src src
COPY launch launch
COPY calibration calibration
COPY engines engines
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:${PYTHON}-slim AS cpu
# What documents as PDF are drawn with.
RUN apt-get update && apt-get install --yes --no-install-recommends libpango-1.0-0 libpangoft2-1.0-0 libharfbuzz-subset0 \
    fonts-liberation fonts-dejavu-core && rm -rf /var/lib/apt/lists/* \
 && useradd --create-home --uid 10001 fluoronav
COPY --from=wheels /wheels /wheels
RUN pip install --no-cache-dir --find-links /wheels "$(ls /wheels/fluoronav-*.whl)[cpu,openvino,igtl,pacs,planning]" && rm -rf /wheels
# For processors with AVX2 and with AVX-512, whatever the image is built on; a start in the OR compiles nothing.
RUN fluoronav kernels build --target all --for-all-users
USER fluoronav
WORKDIR /home/fluoronav
# Computes the embedded case's distance fields once, for every container.
RUN fluoronav case build embedded
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["fluoronav", "status"]
ENTRYPOINT ["fluoronav"]
CMD ["run", "/usr/local/lib/python3.11/site-packages/fluoronav/launch/demo.yaml"]

FROM nvidia/cuda:13.0.1-cudnn-runtime-ubuntu24.04 AS gpu
RUN apt-get update && apt-get install --yes --no-install-recommends python3 python3-venv && rm -rf /var/lib/apt/lists/* \
 && useradd --create-home --uid 10001 fluoronav && python3 -m venv /opt/fluoronav
ENV PATH=/opt/fluoronav/bin:$PATH
COPY --from=wheels /wheels /wheels
RUN pip install --no-cache-dir --find-links /wheels "$(ls /wheels/fluoronav-*.whl)[gpu,rtx,igtl]" && rm -rf /wheels
RUN fluoronav kernels build --target all --for-all-users
USER fluoronav
WORKDIR /home/fluoronav
RUN fluoronav case build embedded
# For every GPU that TensorRT-RTX knows; a start in the OR compiles nothing.
RUN fluoronav engines build --engine tensorrt-rtx --target all
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["fluoronav", "status"]
ENTRYPOINT ["fluoronav"]
CMD ["run", "/opt/fluoronav/lib/python3.12/site-packages/fluoronav/launch/demo.yaml"]
