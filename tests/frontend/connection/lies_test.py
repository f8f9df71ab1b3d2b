"""`pull` from a host that lies: nothing is written elsewhere or printed raw, memory is bounded."""

import os
import shlex
import socket
import sys
import threading
import time
import tracemalloc

import pytest

import lying_sftp
from common import texts
from frontend.actions import pull
from frontend.connection import copying, fetching, sftp
from frontend.errors import HostError, UserError
from network_fixtures import sshd  # noqa: F401
from recorded_run import Recorded

MOST_BYTES = 60 * 1024 * 1024
# What a host may say without being refused: names that are dropped, contents that are just data.
HARMLESS = {
  *(name for name in lying_sftp.LIES if name.startswith('a name ') and 'attributes' not in name),
  'an absolute name', 'the folder and the one above', 'backslashes', 'a part that claims 4 GB',
  'links, folders and devices', 'a device', 'a run.json of lists', 'a run.json of another shape',
  'a run.json without end',
}  # fmt: skip


# What only the clock ends.
ENDLESS = {
  'a list without end', 'the same list without end', 'an empty list without end',
  'answers to what nobody asked', 'a name without attributes',
}  # fmt: skip


class Channel(socket.socket):
  """A socket in the place of a channel of SSH."""

  def get_name(self):
    return 'lies'


class Pull:
  """Pulls from a liar, in this process."""

  def __init__(self, folder, lie):
    self.target = os.path.join(folder, 'deep', 'to')
    self.said = []
    ours, theirs = socket.socketpair()
    ours = Channel(fileno=ours.detach())
    reader = theirs.makefile('rb')

    def serve():
      try:
        lie(reader.read, theirs.sendall).serve()
      except OSError:  # The other end has had enough.
        pass

    self._thread = threading.Thread(target=serve)
    self._thread.start()
    self._sockets = ours, theirs, reader
    self._client = sftp.Client(ours)

  def __call__(self, *which):
    """Returns the sentence that ended it, or ''."""
    files = fetching.RemoteFiles(self._client)
    run = pull.RunCopy(files, '/run', self.target, self.said.append)
    try:
      run.fetch_records()
      for checkpoints in which:
        run.fetch_checkpoints(checkpoints)
    except (HostError, UserError) as error:
      return str(error)
    return ''

  def close(self):
    self._sockets[0].close()
    self._sockets[1].shutdown(socket.SHUT_RDWR)
    self._thread.join(30)
    for end in self._sockets[1:]:
      end.close()


def everything(folder):
  return {
    os.path.relpath(os.path.join(path, name), folder)
    for path, _, names in os.walk(folder)
    for name in names
    if not path.endswith('__pycache__')
  }


@pytest.mark.parametrize('name', lying_sftp.LIES)
def test_a_lie_costs_nothing_but_its_own_files(tmp_path, monkeypatch, name):
  if name in ENDLESS:
    monkeypatch.setattr(sftp, 'ANSWER_SECS', 0.5)
  (tmp_path / 'mine').write_text('precious')
  pull = Pull(tmp_path, lying_sftp.LIES[name])
  tracemalloc.start()
  try:
    sentence = pull('all', 'last', 'best')
    peak = tracemalloc.get_traced_memory()[1]
  finally:
    tracemalloc.stop()
    pull.close()
  assert bool(sentence) != (name in HARMLESS), sentence
  assert peak < MOST_BYTES
  found = everything(tmp_path)
  assert {os.path.dirname(path) for path in found} <= {'', 'deep/to'}
  assert {os.path.basename(path) for path in found} <= {*lying_sftp.RUN, 'mine'}, sentence
  assert (tmp_path / 'mine').read_text() == 'precious'
  assert sentence == texts.printable(sentence)
  for line in pull.said:
    assert line.split('  ')[0] in lying_sftp.RUN


def test_whoever_tells_the_truth_is_believed(tmp_path):
  pull = Pull(tmp_path, lying_sftp.Liar)
  try:
    assert pull('all', 'last', 'best') == ''
    assert set(os.listdir(pull.target)) == set(lying_sftp.RUN)
    for name, data in lying_sftp.RUN.items():
      with open(os.path.join(pull.target, name), 'rb') as file:
        assert file.read() == data
  finally:
    pull.close()


def test_many_answers_may_take_longer_than_one(tmp_path, monkeypatch):
  monkeypatch.setattr(sftp, 'ANSWER_SECS', 1.0)
  asked = []

  class Slow(lying_sftp.Liar):
    def answer(self, kind, number, rest):
      time.sleep(0.05)
      asked.append(kind)
      super().answer(kind, number, rest)

  pull = Pull(tmp_path, Slow)
  try:
    while len(asked) < 25:
      assert pull._client.listing('/run')
  finally:
    pull.close()


def test_large_files_come_whole_over_many_requests(tmp_path):
  data = os.urandom(5_000_001)

  class Large(lying_sftp.Liar):
    def __init__(self, *args):
      super().__init__(*args)
      self.files['metrics.csv'] = data

    def read(self, number, name, offset, length):
      return super().read(number, name, offset, min(length, 30_000))  # Less than asked is allowed.

  pull = Pull(tmp_path, Large)
  try:
    assert pull() == ''
    with open(os.path.join(pull.target, 'metrics.csv'), 'rb') as file:
      assert file.read() == data
  finally:
    pull.close()


def test_push_believes_no_host_either(tmp_path):
  """Four billion attributes of a folder, in an answer of twenty bytes."""
  (tmp_path / 'a.py').write_text('x')

  class Counts(lying_sftp.Liar):
    def answer(self, kind, number, rest):
      if kind != lying_sftp.STAT:
        return super().answer(kind, number, rest)
      return self.send(lying_sftp.ATTRS, number + lying_sftp.MANY_ATTRIBUTES)

  pull = Pull(tmp_path, Counts)
  try:
    with pytest.raises(sftp.ProtocolError, match='fewer attributes than it counts'):
      copying.RemoteFolder(pull._client, '/work').put(str(tmp_path), ['a.py'])
  finally:
    pull.close()


def test_a_link_in_the_target_folder_is_not_followed(tmp_path):
  (tmp_path / 'mine').write_text('precious')
  pull = Pull(tmp_path, lying_sftp.Liar)
  os.makedirs(pull.target)
  os.symlink(tmp_path / 'mine', os.path.join(pull.target, 'learning_curve.png'))
  for name in ('metrics.csv.pull', 'run.json.pull'):
    os.symlink(tmp_path / 'mine', os.path.join(pull.target, name))
  old = os.path.join(pull.target, 'metrics.csv.0123abcd.pull')
  with open(old, 'w', encoding='utf-8') as file:
    file.write('of a pull that was killed')
  os.utime(old, (1, 1))
  try:
    os.remove(os.path.join(pull.target, 'learning_curve.png'))
    assert pull('all') == ''
  finally:
    pull.close()
  assert (tmp_path / 'mine').read_text() == 'precious'
  assert not os.path.exists(old)


def test_the_whole_program_against_a_host_that_lies(sshd, tmp_path):  # noqa: F811
  """A conversation that is honest, and files that are not."""
  recorded = Recorded(str(tmp_path / 'host'), (sshd.address, sshd.port), sshd.home).launched()
  sshd.close()
  script = tmp_path / 'lies'
  words = [sys.executable, lying_sftp.__file__, 'a name far above']
  script.write_text('#!/bin/sh\nexec ' + shlex.join(words))
  script.chmod(0o755)
  sshd.more_settings = {'Subsystem': f'sftp {script}'}
  sshd.start()
  before = everything(tmp_path)
  target = tmp_path / 'to' / 'here'
  done = recorded.run('pull', f'--to={target}', '--checkpoints=all')
  assert done.returncode == 0, done.stdout + done.stderr
  assert set(os.listdir(target)) == set(lying_sftp.RUN)
  assert {os.path.dirname(path) for path in everything(tmp_path) - before} == {'to/here'}
