"""cluster.json in a run's folder: addresses of its tasks, for actors that join while it trains."""

from __future__ import annotations

import contextlib
import json
import os

from absl import logging

from common import files
from runtime.cluster import JOBS, Cluster
from runtime.process import BadInput

_NAME = 'cluster.json'


def write(folder: str, cluster: Cluster) -> None:
  """Writes the addresses of the tasks; called by the chief, which calls `remove` at the end.

  Args:
    folder: the run's folder.
    cluster: the cluster to write.
  """
  path = os.path.join(folder, _NAME)
  text = json.dumps({job: getattr(cluster, job) for job in JOBS})
  try:
    files.write_whole(path, text, durable=False)
  except OSError as e:
    logging.warning('%s cannot be written, so no actor can join the run: %s', path, e.strerror)


def remove(folder: str) -> None:
  """Removes the file at the end of the run, so that no actor tries to join."""
  path = os.path.join(folder, _NAME)
  try:
    with contextlib.suppress(FileNotFoundError):
      os.remove(path)
  except OSError as e:
    logging.warning('%s stays, though the run is over: %s', path, e.strerror)


def read(folder: str) -> dict[str, list[str]]:
  """Reads the addresses of the cluster that is training in a folder.

  Returns:
    {'ps': list of 'host:port', 'learner': .., 'actor': ..}.

  Raises:
    BadInput: no cluster is training there.
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
