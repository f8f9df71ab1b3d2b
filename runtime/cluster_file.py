"""Where a run under way is to be found: cluster.json in its folder, for actors that join it."""

import contextlib
import json
import os

from absl import logging

from common import files
from runtime.cluster import JOBS
from runtime.process import BadInput

_NAME = 'cluster.json'


def write(folder, cluster):
  """The chief says who is who, until `remove`.

  Args:
    folder: of the run.
    cluster: `runtime.cluster.Cluster`.
  """
  path = os.path.join(folder, _NAME)
  text = json.dumps({job: getattr(cluster, job) for job in JOBS})
  try:
    files.write_whole(path, text, durable=False)
  except OSError as e:
    logging.warning('%s cannot be written, so no actor can join the run: %s', path, e.strerror)


def remove(folder):
  """The run is over; nobody can join it any more."""
  path = os.path.join(folder, _NAME)
  try:
    with contextlib.suppress(FileNotFoundError):
      os.remove(path)
  except OSError as e:
    logging.warning('%s stays, though the run is over: %s', path, e.strerror)


def read(folder):
  """Who is who in the run that is under way in a folder.

  Returns:
    dict of 'ps', 'learner' and 'actor', lists of 'host:port'.

  Raises:
    BadInput: no run of a cluster is under way there.
  """
  path = os.path.join(folder, _NAME)
  try:
    with open(path) as f:
      jobs = json.load(f)
    return {job: [str(host) for host in jobs[job]] for job in JOBS}
  except FileNotFoundError:
    raise BadInput(
      f'--logdir={folder}: no run of a cluster is under way here, or its chief has not begun: '
      f'there is no {_NAME}'
    ) from None
  except OSError as e:
    raise BadInput(f'{path} cannot be read: {e.strerror}') from None
  except (ValueError, KeyError, TypeError):
    raise BadInput(f'{path} is no list of the hosts of a run') from None
