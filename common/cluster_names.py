"""The jobs of a cluster, and the names of its tasks."""

from __future__ import annotations

import re

JOBS = ('ps', 'learner', 'actor')


def task_name(job: str, index: int) -> str:
  """Returns a task's name in flags and messages, such as 'learner:0'."""
  return f'{job}:{index}'


def file_name(name: str) -> str:
  """Returns the name of a task's files and tmux window, such as 'learner-0' for 'learner:0'."""
  return name.replace(':', '-')


def parse_task_name(text: str) -> tuple[str, int]:
  """Returns the job and index of 'learner:0' or 'learner-0'.

  Raises:
    ValueError: the text is not the name of a task.
  """
  match = re.fullmatch(rf'({"|".join(JOBS)})[:-](\d{{1,6}})', text)
  if not match:
    raise ValueError(f'{text!r} is not a task')
  return match[1], int(match[2])
