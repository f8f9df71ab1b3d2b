# The image of every task of a cluster:
#   docker build -t registry.example.org/impala:1 . && docker push registry.example.org/impala:1
# For learners with GPUs:
#   docker build --build-arg EXTRA="tensorflow[and-cuda]>=2.21,<2.22" -t registry.example.org/impala:1-gpu .
FROM python:3.11-slim
ARG EXTRA=""

WORKDIR /srv/impala
COPY requirements.txt .
RUN pip install --no-cache-dir -r requirements.txt ${EXTRA:+"$EXTRA"}
COPY . .
# The root file system is read-only later, and the user may write nothing in here.
RUN python -m compileall -q .

ENV HOME=/tmp
USER 1000:1000
ENTRYPOINT ["python", "experiment.py"]
