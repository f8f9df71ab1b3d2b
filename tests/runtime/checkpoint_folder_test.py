"""runtime.checkpoint_folder: a checkpoint survives its disk, and whoever is killed beside it.

Processes of these tests that do without TensorFlow publish checkpoints, and are killed, or have
system calls that fail; what is left is then looked at here, with TensorFlow.
"""

import json
import os
import shutil
import subprocess
import sys

import pytest

from conftest import ROOT
from refused_calls import CALLS, NOT_HERE
from runtime import checkpoint_folder
from runtime.checkpoint_folder import LIST, Saved, look
from runtime.checkpoints import Checkpoints, damage, find, listed, take_over
from runtime.kept_checkpoints import Kept
from runtime.process import BadInput

EARLIER = os.path.join(ROOT, 'tests', 'data', 'earlier_run', 'model.ckpt-24')
ENDINGS = '.index', '.data-00000-of-00001'


def put(folder, name):
  """A real checkpoint of this name."""
  for ending in ENDINGS:
    shutil.copy(EARLIER + ending, os.path.join(folder, name + ending))


def a_run(folder, *numbers, **kept):
  """A folder with checkpoints of these numbers, on a list; 100 frames an update."""
  os.makedirs(folder, exist_ok=True)
  checkpoint_folder.write_list(folder, [], None)
  a_kept = Kept(str(folder), [], [], **{'keep': 9, **kept})
  for number in numbers:
    put(folder, f'model.ckpt-{number}')
    a_kept.add(saved(number))
    a_kept.settle(float(number))
  return str(folder)


def saved(number):
  return Saved(f'model.ckpt-{number}', 100 * number, number, None, False)


def contents(folder):
  """{path below the folder: bytes} of all files."""
  return {
    os.path.relpath(os.path.join(at, name), folder): open(os.path.join(at, name), 'rb').read()
    for at, _, names in os.walk(folder)
    for name in names
  }


# Damaged checkpoints.


def change(path, change_bytes):
  with open(path, 'rb') as file:
    data = file.read()
  with open(path, 'wb') as file:
    file.write(change_bytes(data))


DAMAGES = {
  'empty': lambda path: change(path, lambda data: b''),
  'half': lambda path: change(path, lambda data: data[: len(data) // 2]),
  'zeros': lambda path: change(path, lambda data: bytes(len(data))),
  'one bit': lambda path: change(path, lambda data: data[:9] + bytes([data[9] ^ 4]) + data[10:]),
  'missing': os.remove,
  'of something else': lambda path: change(path, lambda data: b'<html>404 not found</html>'),
}


@pytest.mark.parametrize('ending', ENDINGS)
@pytest.mark.parametrize('kind', DAMAGES)
def test_the_newest_that_is_damaged_is_set_aside_for_the_one_before(kind, ending, tmp_path, caplog):
  folder = a_run(tmp_path / 'run', 1, 2, 3)
  DAMAGES[kind](f'{folder}/model.ckpt-3{ending}')
  before = contents(folder)
  assert find(folder, 'last', '--checkpoint=last', check=True) == f'{folder}/model.ckpt-2'
  assert contents(folder) == before  # Who only reads changes nothing.
  assert take_over(folder) == Checkpoints.latest(folder) == f'{folder}/model.ckpt-2'
  assert 'model.ckpt-3 cannot be used' in caplog.text
  assert 'the run goes on from' in caplog.text
  assert sorted(before.values()) == sorted(contents(folder).values())  # Nothing is lost.
  assert all(name in contents(folder) for name in before if '-3' not in name)
  assert [s.updates for s in listed(folder)] == [1, 2]
  assert take_over(folder) == f'{folder}/model.ckpt-2'


def test_two_damaged_ones_and_then_a_whole_one(tmp_path):
  folder = a_run(tmp_path, 1, 2, 3)
  DAMAGES['half'](f'{folder}/model.ckpt-3.index')
  DAMAGES['zeros'](f'{folder}/model.ckpt-2.data-00000-of-00001')
  assert take_over(folder) == f'{folder}/model.ckpt-1'
  put(folder, 'model.ckpt-3')  # Trained again, and damaged again.
  DAMAGES['empty'](f'{folder}/model.ckpt-3.index')
  assert take_over(folder) == f'{folder}/model.ckpt-1'
  aside = sorted(name for name in os.listdir(folder) if name.startswith('damaged'))
  assert sorted(aside) == ['damaged-2-model.ckpt-3', 'damaged-model.ckpt-2', 'damaged-model.ckpt-3']


def test_where_none_can_be_used_the_run_does_not_begin_anew(tmp_path):
  folder = a_run(tmp_path, 1, 2)
  for number in (1, 2):
    DAMAGES['half'](f'{folder}/model.ckpt-{number}.data-00000-of-00001')
  before = contents(folder)
  for read in (take_over, lambda folder: find(folder, 'last', 'x', check=True)):
    with pytest.raises(BadInput, match='none of the checkpoints .* bring back'):
      read(folder)
  assert contents(folder) == before


def test_a_damaged_one_that_was_asked_for_by_name_is_refused(tmp_path):
  folder = a_run(tmp_path, 1, 2)
  DAMAGES['one bit'](f'{folder}/model.ckpt-1.data-00000-of-00001')
  with pytest.raises(BadInput, match=r'^x: .*ckpt-1 is damaged \(.* those of 100, 200 \(best\)$'):
    find(folder, '100', 'x', check=True)


# The list.


@pytest.mark.parametrize(
  'text', ['', '{', '[]', 'null', '{"checkpoints": [{"name": "a"}]}', '\0' * 50, '[' * 99_999,
           '{"checkpoints": [{"name": 3, "frames": "x", "updates": 1, "mean_return_100": null, '
           '"for_ever": false}]}']
)  # fmt: skip
def test_a_list_that_is_none_is_set_aside_and_made_again(text, tmp_path):
  folder = a_run(tmp_path, 1, 2, 3)
  (tmp_path / LIST).write_text(text)
  assert Checkpoints.latest(folder) == f'{folder}/model.ckpt-3'
  assert (tmp_path / LIST).read_text() == text
  assert take_over(folder) == f'{folder}/model.ckpt-3'
  assert (tmp_path / f'damaged-{LIST}').read_text() == text
  check_none_goes(folder)


@pytest.mark.parametrize('of', ['nobody', 'another run'])
def test_a_list_that_is_lost_or_of_another_run_is_made_again(of, tmp_path):
  folder = a_run(tmp_path / 'run', 1, 2, 3)
  os.remove(f'{folder}/{LIST}')
  if of == 'another run':
    shutil.copy(f'{a_run(tmp_path / "other", 70, 80)}/{LIST}', folder)
  assert take_over(folder) == f'{folder}/model.ckpt-3'
  check_none_goes(folder)


def check_none_goes(folder):
  """Nobody knows any more which were to stay for ever, or are the best: so all do."""
  kept = Kept(folder, listed(folder), look(folder).written, keep=1)
  put(folder, 'model.ckpt-4')
  kept.add(saved(4))
  kept.settle()
  assert [s.name for s in look(folder).written] == [f'model.ckpt-{k}' for k in (1, 2, 3, 4)]
  assert len(look(folder).whole) == 4


def test_what_killed_processes_left_half_written_goes_and_nothing_else(tmp_path):
  folder = a_run(tmp_path, 1, 2)
  (tmp_path / '.saving-abc').mkdir()
  left = ['.saving-abc/model.ckpt-3.index', 'model.ckpt-3.data-00000-of-00001.tempstate123',
          'model.ckpt-3.index.tempstate9', 'checkpoint.tmp0a1b', 'checkpoints.json.new',
          f'.{LIST}.0123456789abcdef.new', 'model.ckpt-3.data-00000-of-00001']  # fmt: skip
  for name in left:
    (tmp_path / name).write_text('half')
  others = ['model.ckpt-2.bak', 'notes.new', 'checkpoint.old', 'model.txt', 'a.tempstate1']
  for name in others:
    (tmp_path / name).write_text('mine')
  before = contents(folder)
  take_over(folder)
  assert before.keys() - contents(folder).keys() == set(left)
  assert not (tmp_path / '.saving-abc').exists()


def test_one_that_was_about_to_be_deleted_is_not_kept_for_ever(tmp_path):
  folder = a_run(tmp_path, 2, 3, 4)
  put(folder, 'model.ckpt-1')  # Its process was killed once the list without it was written.
  put(folder, 'model.ckpt-5')  # And this one before.
  there = [saved(1), *look(folder).written, saved(5)]
  kept = Kept(folder, there, look(folder).written, keep=1, keep_every_frames=100)
  assert [s.updates for s in kept.saved if s.for_ever] == [5]


# Kills, one at each step of a save.

SAVES = f"""
import json, os, shutil, signal, sys
sys.path.insert(0, {ROOT!r})
from runtime import checkpoint_folder
from runtime.checkpoint_folder import Saved
from runtime.kept_checkpoints import Kept

def save(folder, number):
  found = checkpoint_folder.look(folder)
  known = {{saved.name: saved for saved in found.written}}
  there = [known.get(name) or Saved(name, 400, 4, None, False) for name in found.whole]
  kept = Kept(folder, there, found.written, keep=2)
  name = checkpoint_folder.free_name(folder, number)
  with checkpoint_folder.made_apart(folder) as made:
    for ending in {ENDINGS!r}:
      shutil.copyfile({EARLIER!r} + ending, os.path.join(made, name + ending))
    checkpoint_folder.publish(folder, made)
  kept.add(Saved(name, 100 * number, number, 0.0, False))
  kept.settle()

def counted(name, function):
  def call(*args, **kwargs):
    steps.append(name)
    if len(steps) == kill_at:
      os.kill(os.getpid(), signal.SIGKILL)
    return function(*args, **kwargs)
  return call

def run(folder, number):
  child = os.fork()
  if not child:
    try:
      save(folder, number)
      print(*steps, flush=True)
      os._exit(0)
    except BaseException as e:
      print(repr(e), flush=True)
      os._exit(1)
  return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

for name in ('open', 'write', 'fsync', 'rename', 'replace', 'remove', 'unlink', 'mkdir', 'rmdir'):
  setattr(os, name, counted(name, getattr(os, name)))
for folder, number, kill_at in json.load(sys.stdin):
  steps = []
  code = run(folder, number)
  if code != (-signal.SIGKILL if kill_at else 0):
    sys.exit(f'{{folder}}: {{code}}')
"""


def save(*saves):
  """A process for each (folder, number, step at which it is killed or 0); returns what they say."""
  done = subprocess.run(
    [sys.executable, '-c', SAVES], input=json.dumps(saves), capture_output=True, text=True,
    timeout=120,
  )  # fmt: skip
  assert done.returncode == 0, done.stdout + done.stderr
  return done.stdout


@pytest.mark.parametrize('number', [4, 3], ids=['a new one', 'the last once more'])
def test_a_kill_at_any_step_of_a_save_costs_no_checkpoint(number, tmp_path):
  steps = save((a_run(tmp_path / 'whole', 1, 2, 3, keep=2), number, 0)).split()
  for of_each in ('fsync', 'rename', 'replace', 'remove', 'rmdir'):
    assert of_each in steps
  # The best and the newest: 2 and 3. Others may go once the new list is there.
  listed_at = len(steps) - steps[::-1].index('replace')
  folders = {k: a_run(tmp_path / str(k), 1, 2, 3, keep=2) for k in range(1, len(steps) + 1)}
  save(*((folder, number, k) for k, folder in folders.items()))
  for kill_at, folder in folders.items():
    newest = take_over(folder)
    names = look(folder).whole
    at = f'{kill_at}: {steps[kill_at - 1]} of {steps}, {sorted(os.listdir(folder))}'
    assert not [name for name in os.listdir(folder) if 'saving' in name or 'damaged' in name], at
    assert newest == f'{folder}/{names[-1]}' and damage(newest) == '', at
    if kill_at <= listed_at:
      assert 'model.ckpt-2' in names and 'model.ckpt-3' in names, at
  save(*((folder, number, 0) for folder in folders.values()))
  for folder in folders.values():
    found = look(folder)
    assert found.written[-1].updates == number
    assert sorted(found.whole) == sorted(saved.name for saved in found.written)


# System calls that fail, in a process that does nothing else.

REFUSED = f"""
import errno, os, sys
sys.path[:0] = [{ROOT!r}, os.path.join({ROOT!r}, 'tests')]
import refused_calls
from runtime import checkpoint_folder
from common import files
from runtime.checkpoints import Checkpoints, damage, take_over
from runtime.process import RunFailed
files._PAUSES_SECS = (0.01, 0.01)
folder = sys.argv[1]
for call in refused_calls.CALLS:
  for code in (errno.EIO, errno.ESTALE, errno.EACCES, errno.ENOSPC):
    child = os.fork()
    if child:
      status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
      assert status in (7, 8), (call, errno.errorcode[code], status)
      print(call, errno.errorcode[code], status)
      continue
    refused_calls.refuse(call, code)
    try:
      for function in (checkpoint_folder.look, Checkpoints.latest, take_over):
        try:
          function(folder)
          function is take_over and os._exit(8)
        except RunFailed as e:
          if os.strerror(code) not in str(e) or 'nothing is changed' not in str(e):
            os._exit(9)
      os._exit(7)
    except BaseException as e:
      os.write(2, repr(e).encode())
      os._exit(10)
"""


@pytest.mark.skipif(bool(NOT_HERE), reason=NOT_HERE)
def test_a_disk_that_does_not_answer_is_a_reason_and_no_loss(tmp_path):
  folder = a_run(tmp_path, 1, 2, 3)
  before = contents(folder)
  done = subprocess.run(
    [sys.executable, '-c', REFUSED, folder], capture_output=True, text=True, timeout=120
  )
  assert done.returncode == 0, done.stdout + done.stderr
  refused = [line for line in done.stdout.splitlines() if line.endswith(' 7')]
  assert len(refused) == 4 * len(CALLS), done.stdout
  assert contents(folder) == before
  assert take_over(folder) == f'{folder}/model.ckpt-3'
