"""Builds the Dockerfile's image and trains Catch in it: a parameter server, a learner, an actor.

Needs root and buildah. Each task is a container, as user 1000 and with a read-only root file system
except for /tmp and /srv/runs. Words after `--` go to `buildah bud`.

  debootstrap --variant=minbase --include=python3,python3-pip,python3-venv bookworm rootfs
  python benchmarks/image.py --rootfs=rootfs
"""

import argparse
import contextlib
import csv
import os
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PORTS = {'ps': 8700, 'learner': 8701, 'actor': 8702}
LIMIT_SECS = 900
# In a container of `buildah run`: what readOnlyRootFilesystem and runAsUser are in Kubernetes.
LIKE_A_POD = (
  'set -e; mount -o remount,bind,ro /; cd /srv/impala; '
  'exec setpriv --reuid=1000 --regid=1000 --clear-groups --bounding-set=-all --no-new-privs "$@"'
)
CANNOT_WRITE = (
  'id -u; for place in / /srv/impala /opt/venv /usr /etc; do '
  'if touch $place/written 2>/dev/null; then echo wrote $place; exit 1; fi; done; '
  'touch /tmp/written && echo only /tmp'
)


def buildah(*words):
  """Runs buildah; returns the last line of its output."""
  done = subprocess.run(['buildah', *words], check=True, stdout=subprocess.PIPE, text=True)
  return (done.stdout.strip().splitlines() or [''])[-1]


def build(rootfs, more):
  """Builds the image, on a base made of a folder if one is given; returns its id."""
  base = []
  if rootfs:
    container = buildah('from', 'scratch')
    buildah('add', '--quiet', container, rootfs, '/')
    base = ['--build-arg', 'BASE=' + buildah('commit', '--quiet', '--rm', container)]
  return buildah('bud', '--isolation=chroot', '--quiet', *base, *more, ROOT)


class Pods:
  """Containers of an image; they are removed when the context ends."""

  def __init__(self, image, folder):
    self._image, self._folder = image, folder
    self._names, self._processes = [], []

  def __enter__(self):
    return self

  def __exit__(self, *error):
    for process in self._processes:
      if process.poll() is None:
        process.terminate()
    for process in self._processes:
      process.wait()
    for name in self._names:
      buildah('rm', name)

  def start(self, name, *command):
    """Starts a command in a new container, with its output in a file."""
    container = buildah('from', '--pull-never', self._image)
    self._names.append(container)
    words = ['buildah', 'run', '--isolation=chroot', '--cap-add=CAP_SYS_ADMIN', '--user=0:0']
    for place, inside in (('tmp', '/tmp'), ('runs', '/srv/runs')):
      own = os.path.join(self._folder, name, place)
      os.makedirs(own)
      os.chown(own, 1000, 1000)
      words.append(f'--volume={own}:{inside}')
    with open(self.log(name), 'w', encoding='utf-8') as log:
      process = subprocess.Popen(
        [*words, container, '--', 'sh', '-c', LIKE_A_POD, 'sh', *command],
        stdin=subprocess.DEVNULL, stdout=log, stderr=log,
      )  # fmt: skip
    self._processes.append(process)
    return process

  def log(self, name):
    """Returns the path of a container's output."""
    return os.path.join(self._folder, f'{name}.log')


def text_of(path):
  """Returns the text of a file."""
  with open(path, encoding='utf-8', errors='replace') as file:
    return file.read()


def train(image, folder, frames):
  """Trains Catch; returns the exit code of each task and the last row of metrics.csv."""
  hosts = [f'--{job}_hosts=localhost:{port}' for job, port in PORTS.items()]
  with Pods(image, folder) as pods:
    looked = pods.start('look', 'sh', '-c', CANNOT_WRITE)
    if looked.wait(60):
      raise RuntimeError(text_of(pods.log('look')))
    print(' '.join(text_of(pods.log('look')).split()), flush=True)
    tasks = {}
    for job in PORTS:
      own = ['--flagfile=flagfiles/catch.flags', f'--total_environment_frames={frames}']
      own += ['--logdir=/srv/runs/catch'] if job == 'learner' else []
      place = [f'--job_name={job}', '--task=0', '--wait_secs=300']
      tasks[job] = pods.start(job, 'python', 'experiment.py', *hosts, *place, *own)
    deadline = time.monotonic() + LIMIT_SECS
    codes = {}
    for job, process in tasks.items():
      with contextlib.suppress(subprocess.TimeoutExpired):
        codes[job] = process.wait(max(1.0, deadline - time.monotonic()))
    if codes != dict.fromkeys(PORTS, 0):
      for job in PORTS:
        print(f'---- {job}\n{text_of(pods.log(job))[-3000:]}')
      raise RuntimeError(f'exit codes {codes}')
    with open(os.path.join(folder, 'learner/runs/catch/metrics.csv'), encoding='utf-8') as file:
      return codes, list(csv.DictReader(file))[-1]


def main():
  """Builds, trains and prints the result."""
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--rootfs', help='folder of a root file system, to be the base')
  parser.add_argument('--image', help='an image that is there, in place of building one')
  parser.add_argument('--frames', type=int, default=200_000)
  parser.add_argument('more', nargs='*')
  args = parser.parse_args()
  began = time.monotonic()
  image = args.image or build(args.rootfs, args.more)
  print(f'image {image[:12]} after {time.monotonic() - began:.0f} s', flush=True)
  began = time.monotonic()
  with tempfile.TemporaryDirectory() as folder:
    codes, row = train(image, folder, args.frames)
  shown = {name: row[name] for name in ('environment_frames', 'mean_return_100') if name in row}
  print(f'Catch: exit codes {codes}, {shown} after {time.monotonic() - began:.0f} s')


if __name__ == '__main__':
  sys.exit(main())
