# syntax=docker/dockerfile:1.7
ARG PYTHON=3.12
FROM --platform=$BUILDPLATFORM python:${PYTHON}-slim AS base
ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    # a comment in the middle
    PIP_NO_CACHE_DIR=off

WORKDIR /app

FROM base AS builder
RUN --mount=type=cache,target=/root/.cache/pip,sharing=locked \
    --mount=type=bind,source=requirements.txt,target=requirements.txt \
    python -m venv /venv && /venv/bin/pip install -r requirements.txt
RUN <<EOF
set -e
groupadd --system app
useradd --system --gid app app
EOF

FROM base AS final
COPY --from=builder --chown=app:app /venv /venv
COPY --link --chmod=0755 ./docker/entrypoint.sh /entrypoint.sh
USER app
EXPOSE 8000/tcp
HEALTHCHECK --interval=30s --timeout=3s --retries=3 CMD curl --fail http://localhost:8000/ || exit 1
STOPSIGNAL SIGINT
ENTRYPOINT ["/entrypoint.sh"]
CMD ["gunicorn", "--bind", "0.0.0.0:8000", "app:app"]
