"""Names of tasks, in flags and messages and in names of files."""

import pytest

from common import cluster_names


def test_both_spellings_of_a_task():
  assert cluster_names.task_name('learner', 0) == 'learner:0'
  assert cluster_names.file_name('learner:0') == 'learner-0'
  for text in ('actor:12', 'actor-12', 'actor:012'):
    assert cluster_names.parse_task_name(text) == ('actor', 12)


@pytest.mark.parametrize('text', ['', 'actor', 'worker:0', 'actor:', 'actor:-1', 'ps:1 ', 'ps:x'])
def test_what_is_not_a_task(text):
  with pytest.raises(ValueError):
    cluster_names.parse_task_name(text)
