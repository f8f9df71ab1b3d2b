"""A task that is asked to finish gets one signal, however often it is asked."""

import json
import sys

from conftest import eventually
from frontend.host_side import agent, processes, supervisor, task_record

COUNTING = """
import signal, sys, time
def note(*_):
  with open(sys.argv[1], 'a') as file:
    file.write('asked ')
signal.signal(signal.SIGTERM, note)
open(sys.argv[1], 'w').close()
while True:
  time.sleep(0.02)
"""


def test_only_the_first_request_is_a_signal(tmp_path, monkeypatch, processes):
  monkeypatch.setattr(supervisor, 'run_folder', lambda session: str(tmp_path))
  for life in ('first', 'second'):
    told = tmp_path / life
    program = tmp_path / 'program.py'
    program.write_text(COUNTING)
    child = processes.start(sys.executable, program, told)
    eventually(told.exists)
    write_record(tmp_path, child.pid)
    for _ in range(3):
      assert agent.ask('s', 'learner-0') == {'asked': True}
    eventually(lambda told=told: told.read_text())
    assert told.read_text() == 'asked '
    child.kill()
    child.wait()
    assert agent.ask('s', 'learner-0') == {'asked': False}


def write_record(folder, pid):
  """Writes the record of a supervisor and a task that are both the process with this id."""
  mark = processes.start_mark(pid)
  record = task_record.Record(
    'learner-0', 'running', None, pid, mark, pid, mark, 0.0, 0, 'h', processes.realm(), None, None,
    None)  # fmt: skip
  (folder / 'learner-0.supervisor.json').write_text(json.dumps(record._asdict()))
