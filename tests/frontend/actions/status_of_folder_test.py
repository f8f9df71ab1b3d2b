"""The status of a run from its folder: files as supervisors and tasks write them."""

import json
import re
import time

import pytest

import frontend_fixtures
from frontend.actions import status

NOW = 1000.0


@pytest.fixture
def write(tmp_path):
  """Writes the files of one task."""
  (tmp_path / 'tasks').mkdir()

  def task(name, host, pid, state='running', exit_code=None, own=None, line=''):
    record = dict(task=name, state=state, exit_code=exit_code, pid=pid, started=NOW - 60,
                  restarts=2, host=host)  # fmt: skip
    folder = tmp_path / 'tasks'
    (folder / f'{name}.supervisor.json').write_text(json.dumps(record))
    (folder / f'{name}.log').write_text(f'{line}\n')
    if own:
      file = folder / f'{own["job"]}-{own["task"]}.json'
      file.write_text(json.dumps(dict(last_seen=NOW - 1, host=host, pid=pid, **own)))

  return task


def rows(tmp_path):
  return status.folder_rows(str(tmp_path / 'tasks'), NOW)


def test_tasks_are_named_by_what_they_say_and_sorted_by_job(tmp_path, write):
  chief = dict(job='learner', task=0, logdir='/run', frames_per_sec=None, mean_return_100=3.5)
  # Processes of two hosts may have the same number.
  write('task-1', 'b', 7, own=chief, line='learns')
  write('task-0', 'a', 7, own=dict(job='ps', task=0))
  write('spare-4', 'c', 9, own=dict(job='actor', task=12, frames_per_sec=50.5))
  write('task-2', 'b', 8, own=dict(job='actor', task=2, frames_per_sec=10.0))
  write('task-3', 'c', 3)
  found = rows(tmp_path)
  assert [row['task'] for row in found] == ['ps-0', 'learner-0', 'actor-2', 'actor-12', 'task-3']
  assert [row['host'] for row in found] == ['a', 'b', 'b', 'c', 'c']
  assert [row['frames_per_sec'] for row in found] == [None, None, 10.0, 50.5, None]
  assert all(set(row) == set(status.STATUS_KEYS) for row in found)
  assert found[1]['training']['mean_return_100'] == 3.5 and found[0]['training'] is None
  assert (found[1]['last_line'], found[1]['uptime_secs'], found[1]['restarts']) == ('learns', 60, 2)


def test_who_does_not_answer_stands_below_the_table(tmp_path, write):
  silent = {'ps:1': NOW - 43, 'actor:7\x1b[2J': NOW - 20}
  write('task-0', 'a', 7, own=dict(job='learner', task=0, no_answer=silent))
  write('task-1', 'b', 8, own=dict(job='actor', task=0, no_answer={'ps:1': NOW - 41}))
  write('task-2', 'c', 9, own=dict(job='ps', task=0, no_answer={'actor:3': NOW - 90}))
  path = tmp_path / 'tasks' / 'ps-0.json'
  state = json.loads(path.read_text())
  state['last_seen'] = NOW - status.ALIVE_SECS + 1  # What it said is old.
  path.write_text(json.dumps(state))
  lines = status.silent_lines(rows(tmp_path), NOW)
  assert [re.sub(r'since [\d:]{8} ', '', line) for line in lines] == [
    'ps-0 does not answer (19s ago), says its own state file',
    'ps-1 does not answer (43s ago), says learner-0, actor-0',
    'actor-7[2J does not answer (20s ago), says learner-0',
  ]
  clock = time.strftime('%H:%M:%S', time.localtime(NOW - 43))
  assert f'since {clock} (43s ago)' in lines[1]


@pytest.mark.parametrize('no_answer', [None, ['ps:1'], {'ps:1': 'long'}, 'ps:1'])
def test_what_a_task_says_of_others_may_be_anything(tmp_path, write, no_answer):
  write('task-0', 'a', 7, own=dict(job='learner', task=0, no_answer=no_answer))
  assert status.silent_lines(rows(tmp_path), NOW) == []


def test_who_says_nothing_any_more_or_ended_is_not_running(tmp_path, write):
  write('task-0', 'a', 7, own=dict(job='ps', task=0, frames_per_sec=1.0))
  path = tmp_path / 'tasks' / 'ps-0.json'
  state = json.loads(path.read_text())
  state['last_seen'] = NOW - status.ALIVE_SECS - 1
  path.write_text(json.dumps(state))
  write('task-1', 'a', 8, state='exited', exit_code=0, own=dict(job='learner', task=0))
  write('task-2', 'a', 9, state='exited', exit_code=-9)
  first, second, third = rows(tmp_path)
  assert (first['state'], first['frames_per_sec']) == ('no answer', None)
  assert (second['state'], second['uptime_secs']) == ('exited 0', None)
  assert third['state'] == 'exited -9'


@pytest.mark.parametrize(
  'text, said',
  [
    ('{"half', 'is not a record of a supervisor'),
    ('', 'is empty'),
    ('[]', 'is not a record of a supervisor'),
    ('[' * 100_000, 'is not a record of a supervisor'),
    ('{"task": "task-9"}', 'its state is not valid'),
    ('{"state": "exited", "started": 1}', 'it lacks the exit code'),
    ('{"state": "running", "started": "soon", "pid": 3}', 'its started is not valid'),
    ('{"state": "running", "started": 1, "restarts": -1}', 'its restarts is not valid'),
    ('{"state": "\\u001b[2J", "started": 1}', 'its state is not valid'),
  ],
)
def test_one_bad_record_is_named_and_hides_no_other_task(tmp_path, write, text, said):
  write('task-0', 'a', 7, own=dict(job='ps', task=0), line='serves')
  (tmp_path / 'tasks' / 'task-9.supervisor.json').write_text(text)
  (tmp_path / 'tasks' / 'odd.supervisor.json').write_text('{}')
  good, *bad = rows(tmp_path)
  assert (good['task'], good['last_line']) == ('ps-0', 'serves')
  named = {row['task']: row for row in bad}
  assert set(named) == {'task-9', 'odd'}
  assert said in named['task-9']['last_line'] and named['task-9']['state'] == 'no answer'
  status.status_table([good, *bad], 200)


def test_names_of_files_and_hosts_steer_no_terminal(tmp_path, write):
  write('task-\x1b[2J0', 'a\x1b]0;owned\x07', 7, line='\x1b[31mred')
  (tmp_path / 'tasks' / 'x\x9b2J.supervisor.json').write_text('')
  assert '\x1b' not in status.status_table(rows(tmp_path), 500)
  assert all(str(cell).isprintable() for row in rows(tmp_path) for cell in row.values())


def test_what_a_task_says_of_itself_may_be_anything(tmp_path, write):
  write('task-0', 'a', 7, own=dict(job='ps', task=0))
  write('task-1', 'a', 8)
  strange = dict(host='a', pid=8, job=['ps'], task='one', last_seen='now', phase=3, logdir={},
                 frames_per_sec='fast', mean_return_100=float('nan'))  # fmt: skip
  (tmp_path / 'tasks' / 'learner-0.json').write_text(json.dumps(strange))
  (tmp_path / 'tasks' / 'learner-1.json').write_text('"text"')
  first, second = rows(tmp_path)
  assert (first['task'], second['task']) == ('ps-0', 'task-1')
  assert (second['frames_per_sec'], second['last_seen_secs'], second['training']) == 3 * (None,)


def test_the_program_prints_the_table_and_refuses_other_folders(tmp_path, write):
  write('task-0', 'node9', 7, own=dict(job='ps', task=0), line='serves')
  done = frontend_fixtures.frontend(['--action=status', f'--run_folder={tmp_path}'])
  header, row = done.stdout.splitlines()
  assert header.split()[:3] == ['task', 'host', 'state']
  assert row.split()[:2] == ['ps-0', 'node9'] and row.endswith('serves')
  csv = '--cluster_csv_path=local_cluster_example.csv'
  for action, words, said in (
    ('status', ['--run_folder=/nowhere'], 'there is no folder tasks in it'),
    ('status', [f'--run_folder={tmp_path}', csv], 'stands alone'),
    ('logs', [f'--run_folder={tmp_path}', csv], '--run_folder belongs to status, not to logs'),
  ):
    done = frontend_fixtures.frontend([f'--action={action}', *words])
    assert (done.returncode, done.stderr.count('\n')) == (2, 1) and said in done.stderr
