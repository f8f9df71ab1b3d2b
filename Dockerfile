# The image of every task of a cluster:
#   docker build -t registry.example.org/impala:1 . && docker push registry.example.org/impala:1
# For learners with GPUs (what EXTRA brings is not in requirements.lock):
#   docker build --build-arg EXTRA="tensorflow[and-cuda]>=2.21,<2.22" -t registry.example.org/impala:1-gpu .
# A tag may mean something else tomorrow; what `docker pull` prints as Digest does not:
#   docker build --build-arg BASE=python:3.11-slim@sha256:... -t registry.example.org/impala:1 .
# Any base with Python 3.10 to 3.13 and its venv module will do.
ARG BASE=python:3.11-slim
FROM ${BASE}
ARG EXTRA=""

# Packages go into an environment of their own: the Python of a distribution takes none from pip.
RUN python3 -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH

WORKDIR /srv/impala
COPY requirements.lock .
RUN pip install --no-cache-dir --require-hashes -r requirements.lock
RUN if [ -n "$EXTRA" ]; then pip install --no-cache-dir "$EXTRA"; fi
COPY . .
# The root file system is read-only later, and the user may write nothing in here.
RUN python -m compileall -q .

ENV HOME=/tmp
USER 1000:1000
ENTRYPOINT ["python", "experiment.py"]
