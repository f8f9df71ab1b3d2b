"""The watchdog ends a process that makes no progress, but not one that was suspended."""

import json
import os
import signal
import sys
import time

import psutil

from runtime.cluster import LOCAL
from runtime.heartbeat import Heartbeat
from runtime.process import EXIT_FAILURE

# A loop whose only phase takes a second of sleep in small pieces: after a SIGCONT the pieces that
# are left are still to come, so the watchdog looks before the loop has made progress.
_LOOP = """
import time
from runtime.cluster import LOCAL
from runtime.heartbeat import Heartbeat
heartbeat = Heartbeat(LOCAL, watchdog_secs=4)
while True:
  heartbeat.enter('actor loop 0', 'unroll')
  print('unroll', flush=True)
  for _ in range({pieces}):
    time.sleep(0.05)
"""


def _start(processes, eventually, pieces):
  """A process with a loop whose phase has so many pieces of 0.05 s; it has begun."""
  process = processes.start(sys.executable, '-c', _LOOP.format(pieces=pieces))
  eventually(lambda: _unrolls(process), message=process.output)
  return process


def _unrolls(process):
  return process.output().count('unroll\n')


def test_a_state_file_follows_no_link_and_what_a_killed_process_left_goes(tmp_path, eventually):
  victim, state = tmp_path / 'victim', tmp_path / 'state'
  victim.write_text('precious')
  state.mkdir()
  for name in ('local-0.json', 'local-0.json.new'):
    (state / name).symlink_to(victim)
  for name in ('.local-0.json.0123456789abcdef.new', '.actor-1.json.0123456789abcdef.new'):
    (state / name).write_text('half')
  heartbeat = Heartbeat(LOCAL, state_dir=str(state))
  heartbeat.update(trouble='NOT SAVED')
  heartbeat.write()
  assert json.loads((state / 'local-0.json').read_text())['trouble'] == 'NOT SAVED'
  assert victim.read_text() == 'precious'
  left = ['.actor-1.json.0123456789abcdef.new', 'local-0.json', 'local-0.json.new']
  eventually(lambda: sorted(os.listdir(state)) == left)


def test_a_state_file_that_cannot_be_written_is_said_once(tmp_path, caplog, eventually):
  (tmp_path / 'file').write_text('')
  heartbeat = Heartbeat(LOCAL, state_dir=str(tmp_path / 'file' / 'state'))

  def said():
    return caplog.text.count('cannot write the state file')

  # Whoever writes first says it, here or in the heartbeat's own thread, which begins by itself.
  eventually(lambda: heartbeat.write() or said())
  for _ in range(3):
    heartbeat.write()
  assert said() == 1


def test_a_loop_without_progress_is_ended(processes, eventually):
  process = _start(processes, eventually, pieces=1_000_000)
  assert process.exit_code(60) == EXIT_FAILURE
  assert 'local: actor loop 0 made no progress for' in process.output().splitlines()[-1]


def test_a_process_that_was_suspended_goes_on(processes, eventually):
  process = _start(processes, eventually, pieces=20)
  os.kill(process.pid, signal.SIGSTOP)
  eventually(lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED)
  # More than watchdog_secs, and than a heartbeat is late that did run.
  until, before = time.monotonic() + 12, _unrolls(process)
  eventually(lambda: time.monotonic() > until)
  os.kill(process.pid, signal.SIGCONT)
  # More than watchdog_secs of progress.
  eventually(lambda: _unrolls(process) >= before + 6, message=process.output)
  assert process.poll() is None
