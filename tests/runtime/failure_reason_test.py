"""runtime.process.failure_reason: errors of the machine are sentences, possible bugs are not."""

import errno
import os

import pytest

from runtime import process
from runtime.process import RunFailed


class OpError(Exception):
  """As TensorFlow's: the text is in `message`."""

  def __init__(self, message):
    super().__init__(message)
    self.message = message


@pytest.mark.parametrize(
  'error, said',
  [
    (RunFailed('the run cannot go on'), 'the run cannot go on'),
    (OSError(errno.ENOSPC, 'x', '/d/metrics.csv'), '/d/metrics.csv: No space left on device'),
    (PermissionError(errno.EACCES, 'x', b'/d/run.json'), '/d/run.json: Permission denied'),
    (OSError(errno.EROFS, 'x'), 'Read-only file system'),
    (MemoryError('of 3 GB'), 'this machine is out of memory of 3 GB'),
    (
      OpError('Graph execution error:\n\nmodel.ckpt.data; No space left on device\n\t [[node]]'),
      'model.ckpt.data; No space left on device',
    ),
    # What may be a bug.
    (FileNotFoundError(errno.ENOENT, 'x', 'y'), ''),
    (OSError('without a number'), ''),
    (KeyError('No space left on device'), ''),
    (OpError('No space left on device, said a test'), ''),
  ],
)
def test_whose_failure_it_is(error, said):
  assert process.failure_reason(error) == said


def test_a_cause_is_looked_into():
  try:
    try:
      os.open('/proc/self/mem/x', os.O_RDONLY)
    except OSError as cause:
      raise ValueError('no record') from cause
  except ValueError as error:
    assert process.failure_reason(error) == '/proc/self/mem/x: Not a directory'


def test_too_many_files_are_told_with_the_limit():
  assert '(ulimit -n is ' in process.failure_reason(OSError(errno.EMFILE, 'x', 'f'))
