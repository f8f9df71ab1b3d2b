"""Files are replaced completely or not at all, and durably if requested."""

import os
import stat
import subprocess
import sys

import pytest

from common import files
from conftest import ROOT


def test_what_goes_wrong_leaves_the_old_file_and_nothing_else(tmp_path):
  path = tmp_path / 'file'
  path.write_text('old')
  with pytest.raises(ValueError):
    with files.replacing(str(path)) as file:
      file.write(b'half')
      raise ValueError
  with pytest.raises(OSError):
    with files.replacing(str(tmp_path / 'nowhere' / 'file')):
      pass
  assert os.listdir(tmp_path) == ['file'] and path.read_text() == 'old'


def test_file_and_name_are_synced_in_this_order(tmp_path, monkeypatch):
  done = []

  def spy(name, label):
    real = getattr(os, name)

    def call(first, *rest):
      done.append(label(first))
      return real(first, *rest)

    monkeypatch.setattr(os, name, call)

  kind = lambda number: 'folder' if stat.S_ISDIR(os.fstat(number).st_mode) else 'file'  # noqa: E731
  spy('fsync', kind)
  spy('replace', lambda path: 'replace')
  with files.replacing(str(tmp_path / 'file'), durable=True) as file:
    file.write(b'new')
  assert done == ['file', 'replace', 'folder']


KILLED = """
import os, signal, sys
sys.path.insert(0, {root!r})
from common import files
with files.replacing({path!r}, '.pull') as file:
  file.write(b'half')
  file.flush()
  os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_writer_left_is_removed_later_and_nothing_else(tmp_path):
  path = tmp_path / 'file'
  path.write_text('old')
  program = KILLED.format(root=ROOT, path=str(path))
  subprocess.run([sys.executable, '-c', program], check=False)
  (left,) = set(os.listdir(tmp_path)) - {'file'}
  for name in ('mine.pull', 'file.0123abcd.tmp', 'file.0123ABCD.pull', '0123abcd.pull'):
    (tmp_path / name).touch()
    os.utime(tmp_path / name, (1, 1))
  now = os.stat(tmp_path / left).st_mtime
  files.remove_leftovers(str(tmp_path), '.pull', 60.0, now + 59)
  assert left in os.listdir(tmp_path)
  files.remove_leftovers(str(tmp_path), '.pull', 60.0, now + 61)
  assert sorted(os.listdir(tmp_path)) == [
    '0123abcd.pull', 'file', 'file.0123ABCD.pull', 'file.0123abcd.tmp', 'mine.pull'
  ]  # fmt: skip
  assert path.read_text() == 'old'
