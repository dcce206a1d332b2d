# The server of a bundle, in ONNX Runtime: no MindSpore, no root, nothing written.
#
#   docker build -t mindcv_poolformer .
#   docker run --rm --read-only -p 127.0.0.1:8080:8080 -v "$PWD/bundle:/bundle:ro" mindcv_poolformer
FROM python:3.11-slim AS packages
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY mindcv_poolformer mindcv_poolformer
RUN python -m pip install --no-cache-dir --disable-pip-version-check --compile ".[serving]"

FROM python:3.11-slim
ENV PYTHONDONTWRITEBYTECODE=1
COPY --from=packages /usr/local/lib/python3.11/site-packages /usr/local/lib/python3.11/site-packages
USER 10001:10001
# MLServer keeps files here, if it has worker processes: give it --tmpfs /tmp then.
WORKDIR /tmp
ENV MLSERVER_HOST=0.0.0.0
EXPOSE 8080 8081 8082
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["python", "-c", "import os; from urllib.request import urlopen; urlopen('http://127.0.0.1:%s/v2/health/ready' % (os.environ.get('MLSERVER_HTTP_PORT') or 8080), timeout=4)"]
ENTRYPOINT ["python", "-m", "mindcv_poolformer.serving"]
CMD ["/bundle"]
