# tinv with its tested dependencies. Data and runs are volumes:
#   docker build -t tinv .
#   docker run --rm -v "$PWD/data:/data" -v "$PWD/runs:/home/tinv/runs" tinv fit --config configs/red_green.yaml
ARG BASE=python:3.11-slim-bookworm
FROM ${BASE}

COPY pyproject.toml constraints.txt README.md LICENSE /src/
COPY configs /src/configs
COPY sweeps /src/sweeps
COPY tinv /src/tinv

# one layer: environment, user, and the two folders that volumes are mounted on
RUN python3 -m venv /opt/tinv \
    && /opt/tinv/bin/pip install --no-cache-dir -c /src/constraints.txt /src \
    && rm -rf /src \
    && useradd --create-home --uid 1000 tinv \
    && mkdir /data /home/tinv/runs \
    && chown tinv: /data /home/tinv/runs

USER tinv
WORKDIR /home/tinv
ENV PATH=/opt/tinv/bin:$PATH TINV_DATA=/data PYTHONUNBUFFERED=1
VOLUME ["/data", "/home/tinv/runs"]
ENTRYPOINT ["tinv"]
CMD ["--help"]
