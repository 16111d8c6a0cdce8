# One image for the API, the worker and the migrations; the command decides which.
#   docker build -t llm-service .

FROM python:3.13-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
# What changes seldom comes first. The build tools stay in this stage's own Python; what will run goes into a
# virtual environment without pip.
COPY requirements-build.txt requirements.txt ./
RUN pip install --require-hashes -r requirements-build.txt \
 && python -m venv --without-pip /opt/venv \
 && pip --python /opt/venv/bin/python install --require-hashes --only-binary :all: -r requirements.txt
COPY pyproject.toml README.md ./
COPY src ./src
RUN pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
 && pip --python /opt/venv/bin/python install --no-index --no-deps /wheels/*.whl

FROM python:3.13-slim
RUN groupadd --gid 65532 service \
 && useradd --uid 65532 --gid 65532 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin service \
 && pip uninstall --yes --root-user-action=ignore pip
COPY --from=build /opt/venv /opt/venv
WORKDIR /app
# `llm-service migrate` looks for these two in the directory it is started in.
COPY pyproject.toml ./
COPY alembic ./alembic
# Nothing is written but to standard error: the file system may be read-only.
ENV PATH=/opt/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOST=0.0.0.0 PORT=8000
USER 65532:65532
EXPOSE 8000
STOPSIGNAL SIGTERM
CMD ["llm-service", "api"]
