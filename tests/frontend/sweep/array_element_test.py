"""An element of an array job: what it waits for, which list it writes, and how it ends."""

import os
import re
import subprocess
import sys
import threading
import time

import pytest

from conftest import ROOT, eventually
from frontend.host_side import sweep_folder
from frontend.host_side.sweep_children import Children
from frontend.host_side.sweep_folder import MOST_KILLS, Outcome, Run, Sweep
from frontend.sweep import array_element

SWEEP = Sweep(['seed'], ['--level_name=x'], [Run('seed=1', {'seed': '1'})])
CLAIM = """
import sys
from frontend.host_side import sweep_folder
assert sweep_folder.claim(sys.argv[1], 1, 'one', epoch=1)
print('claimed', flush=True)
sys.stdin.read()  # Until it is killed.
"""


def test_an_element_waits_until_its_earlier_life_has_ended(tmp_path):
  folder = str(tmp_path)
  tasks = sweep_folder.tasks_folder(folder, 'seed=1')
  earlier = subprocess.Popen(
    [sys.executable, '-c', CLAIM, tasks],
    cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
  )  # fmt: skip
  try:
    assert earlier.stdout.readline() == 'claimed\n'
    # The run is another element's: nothing to wait for.
    began = time.monotonic()
    array_element._wait_for_earlier_life(folder, SWEEP, 'two')
    assert time.monotonic() - began < array_element._EARLIER_LIFE_SECS / 2
    waiting = threading.Thread(
      target=array_element._wait_for_earlier_life, args=(folder, SWEEP, 'one'), daemon=True
    )
    waiting.start()
    waiting.join(2.5)
    assert waiting.is_alive()
  finally:
    earlier.kill()
    earlier.wait()
    earlier.stdin.close()
    earlier.stdout.close()
  eventually(lambda: not waiting.is_alive(), 30)
  assert sweep_folder.state(folder, SWEEP.runs[0], '', 1) == 'waiting'


def test_the_list_is_written_once_and_again_where_runs_are_added(tmp_path):
  folder = str(tmp_path / 'new')
  seen = []

  def plan(old):
    seen.append(old)
    return old or SWEEP

  first = array_element._listed(folder, plan)
  assert (seen, first.epoch) == ([None], 1) and sweep_folder.read(folder) == first
  sweep_folder.set_stopping(folder, True)
  written = os.stat(os.path.join(folder, 'sweep.json'))
  assert array_element._listed(folder, plan) == first and seen[1] == first
  assert os.stat(os.path.join(folder, 'sweep.json')).st_mtime_ns == written.st_mtime_ns
  assert not os.path.exists(os.path.join(folder, 'stopping'))
  more = first._replace(runs=[*first.runs, Run('seed=2', {'seed': '2'})])
  assert array_element._listed(folder, lambda old: more).epoch == 2
  assert [run.name for run in sweep_folder.read(folder).runs] == ['seed=1', 'seed=2']


def test_a_run_is_given_up_after_many_kills_in_a_row_not_after_many_rounds(tmp_path):
  folder, name = str(tmp_path), 'seed=1'
  tasks = sweep_folder.tasks_folder(folder, name)
  children = Children(folder, 'one', print)
  # Thirty rounds of a population have ended well.
  os.makedirs(tasks)
  sweep_folder.write_outcome(tasks, Outcome(30, 'waiting', 0, 0.0))
  ended = [children._outcome_of_killed(name, 31 + i, -9) for i in range(MOST_KILLS)]
  assert [outcome.state for outcome in ended] == ['waiting'] * (MOST_KILLS - 1) + ['failed']
  assert sweep_folder.outcome(tasks) == ended[-1]


@pytest.mark.slow
def test_an_element_whose_run_fails_ends_with_1_and_says_where_the_log_is(tmp_path, processes):
  folder = tmp_path / 'sweep'
  run = processes.start(
    'run_experiment_mm_raw.py', '--action=sweep', f'--logdir={folder}', '--element=one',
    '--sweep=seed=1', '--level_name=impala/Catch-v0', '--learner_devices=/gpu:9',
  )  # fmt: skip
  assert run.exit_code(240) == 1, run.output()
  assert re.search(r'seed=1 has failed: .*tasks has its log', run.output())
  sweep = sweep_folder.read(str(folder))
  assert sweep_folder.states(str(folder), sweep, '') == {'seed=1': 'failed'}
