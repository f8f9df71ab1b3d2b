"""runtime.locks: one process at a time, also where the file system has no locks to give."""

import os
import subprocess
import sys

import pytest

from conftest import ROOT
from refused_calls import NOT_HERE
from runtime.locks import lock_folder
from runtime.process import BadInput

TRY = f"""
import errno, os, sys
sys.path[:0] = [{ROOT!r}, os.path.join({ROOT!r}, 'tests')]
from runtime import locks, process
if sys.argv[2]:
  import refused_calls
  refused_calls.refuse('flock', getattr(errno, sys.argv[2]))
try:
  with locks.alone(os.path.dirname(sys.argv[1]), '.x.lock'):
    held = locks.lock_folder(sys.argv[1], '--logdir')
    print('locked', flush=True)
    sys.stdin.read()
except process.BadInput as e:
  print(e)
"""


def attempt(folder, code, **options):
  return subprocess.Popen(
    [sys.executable, '-c', TRY, str(folder), code],
    text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options,
  )  # fmt: skip


@pytest.mark.skipif(bool(NOT_HERE), reason=NOT_HERE)
@pytest.mark.parametrize('code', ['EOPNOTSUPP', 'ENOLCK', 'ENOSYS'])
def test_without_locks_of_the_file_system_it_goes_on_and_says_so(code, tmp_path):
  folder = tmp_path / 'run'
  with attempt(folder, code) as first:
    try:
      assert first.stdout.readline() == 'locked\n'
      with attempt(folder, code, env={**os.environ}) as second:
        said, _ = second.communicate(timeout=60)
      assert said == f'--logdir={folder} is in use by process {first.pid}: choose another one\n'
    finally:
      first.kill()
    _, warned = first.communicate(timeout=60)
  assert 'has no file locks' in warned and 'another machine' in warned
  with attempt(folder, code) as third:  # The holder was killed, and its name still stands there.
    assert third.communicate(timeout=60)[0] == 'locked\n'


def test_a_name_on_a_lock_that_nobody_holds_is_no_holder(tmp_path):
  (tmp_path / 'lock').write_bytes(b'\xff\xfe 12 what is this')
  lock = lock_folder(str(tmp_path), '--logdir')
  with pytest.raises(BadInput, match=f'is in use by process {os.getpid()}:'):
    lock_folder(str(tmp_path), '--logdir')
  lock.close()
  lock_folder(str(tmp_path), '--logdir').close()


def test_a_link_that_somebody_else_may_have_put_there_is_not_followed(tmp_path):
  victim = tmp_path / 'victim'
  victim.write_text('precious')
  folder = tmp_path / 'shared'
  folder.mkdir()
  (folder / 'lock').symlink_to(victim)
  lock_folder(str(folder), '--logdir').close()  # In a folder of one's own it is one's own link.
  victim.write_text('precious')
  folder.chmod(0o777)
  with pytest.raises(BadInput, match='cannot be written: Too many levels of symbolic links'):
    lock_folder(str(folder), '--logdir')
  assert victim.read_text() == 'precious'
