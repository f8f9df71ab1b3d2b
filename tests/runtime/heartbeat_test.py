"""The watchdog ends a process that makes no progress, but not one that was suspended."""

import signal
import subprocess
import sys
import time

import pytest

from conftest import ROOT
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


@pytest.fixture
def start():
  """Starts a process with a loop whose phase has so many pieces of 0.05 s; ends all it started."""
  processes = []

  def start_loop(pieces):
    processes.append(
      subprocess.Popen(
        [sys.executable, '-c', _LOOP.format(pieces=pieces)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
      )
    )
    assert processes[-1].stdout.readline() == 'unroll\n'
    return processes[-1]

  yield start_loop
  for process in processes:
    process.kill()
    process.communicate()


def test_a_loop_without_progress_is_ended(start):
  process = start(pieces=1_000_000)
  _, said = process.communicate(timeout=60)
  assert process.returncode == EXIT_FAILURE
  assert 'local: actor loop 0 made no progress for' in said.splitlines()[-1]


def test_a_process_that_was_suspended_goes_on(start):
  process = start(pieces=20)
  process.send_signal(signal.SIGSTOP)
  time.sleep(12)  # How long it is suspended: more than watchdog_secs and than a late heartbeat.
  process.send_signal(signal.SIGCONT)
  for _ in range(6):  # More than watchdog_secs of progress.
    assert process.stdout.readline() == 'unroll\n'
  assert process.poll() is None
