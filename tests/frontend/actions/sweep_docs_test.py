"""The commands of docs/many_runs.md, as printed, with a trainer that takes no time."""

import json
import os
import subprocess
import sys

import pytest

import frontend_fixtures
from conftest import ROOT, blocks_of, commands_of, eventually
from frontend import cluster_csv
from frontend_fixtures import own_tmux  # noqa: F401
from network_fixtures import end_processes

PAGE = 'docs/many_runs.md'
TRAINER = """
import json, os, sys, time
def main(words):
  return 2 if '--seed=99' in words else 0
if __name__ == '__main__':
  flags = dict((word.lstrip('-').split('=', 1) + [''])[:2] for word in sys.argv[1:])
  os.makedirs(flags['logdir'], exist_ok=True)
  record = {'started': time.time(), 'flags': dict(flags, total_environment_frames=100)}
  with open(os.path.join(flags['logdir'], 'run.json'), 'w') as file:
    json.dump(record, file)
  state = dict(pid=os.getpid(), phase='done', last_seen=time.time(), environment_frames=100,
               mean_return_100=float(flags.get('seed', 0)), logdir=flags['logdir'])
  with open(os.path.join(flags['state_dir'], 'local-0.json'), 'w') as file:
    json.dump(state, file)
  print('trained')
"""


class Page:
  """Runs commands of the page in a copy of the code."""

  def __init__(self, folder, tmux):
    self.code = frontend_fixtures.copy_code(folder / 'code', TRAINER)
    self._tmux = tmux

  def __call__(self, command, *more):
    python, program, *words = command
    assert (python, program) == ('python', 'run_experiment_mm_raw.py')
    words = [sys.executable, program, f'--tmux_socket={self._tmux.path}', *words, *more]
    return subprocess.run(
      words, cwd=self.code, capture_output=True, text=True, timeout=200, check=False
    )

  def wait_for(self, command, done):
    """Runs a command that asks for the status until so many runs are done; the status."""

    def look():
      status = json.loads(self(command, '--json').stdout)
      return status['done'] == done and status

    return eventually(look, 120, lambda: self(command).stdout)


@pytest.fixture(name='page')
def page_fixture(tmp_path, own_tmux):  # noqa: F811
  made = Page(tmp_path, own_tmux)
  yield made
  end_processes(frontend_fixtures.with_argument(made.code))


def test_the_commands_for_this_machine(page):
  sweep, status, drawn = commands_of(PAGE, 'On this machine')
  logs, stop, again, pull = commands_of(PAGE, 'What happens to a run')
  begun = page(sweep, '--slots=6')
  assert begun.returncode == 0, begun.stderr
  told = page.wait_for(status, 6)
  assert {row['mean_return'] for row in told['rows']} == {1.0, 2.0, 3.0}
  table = page(status).stdout
  assert '6 runs: 6 done' in table and 'learning_rate=3e-4,seed=3  done' in table
  assert page(logs).stdout.count(': trained') == 6
  one = page(logs, '--task=learning_rate=1e-3,seed=1').stdout
  assert {line.split(': ')[0] for line in one.splitlines()} == {'learning_rate=1e-3,seed=1'}
  typo = page(logs, '--task=learning_rate=1e-3,seed=11')
  assert typo.returncode == 2 and 'did you mean learning_rate=1e-3,seed=1?' in typo.stderr
  assert page(stop).stdout.startswith('localhost: nothing ran')
  assert '6 done' in page(again).stdout
  assert page(pull).returncode == 0
  pulled = os.path.join(page.code, 'results', 'sweep1')
  assert len([n for n in os.listdir(pulled) if os.path.exists(f'{pulled}/{n}/run.json')]) == 6
  assert 'nothing new of 6 runs' in page(pull).stdout
  assert page(drawn, '--nostart').returncode == 0
  with open(os.path.join(page.code, 'runs', 'drawn', 'sweep.json'), encoding='utf-8') as file:
    assert len(json.load(file)['runs']) == 24
  impossible = page(sweep, '--sweep=decay=0.9', '--seed=99')
  assert impossible.returncode == 2 and '--seed is swept' in impossible.stderr


def test_the_commands_for_several_hosts(page):
  ((text),) = blocks_of(PAGE, 'On several hosts', 'csv')
  hosts = cluster_csv.parse_cluster(text, 'hosts.csv').hosts
  assert [(host.address, host.slots, host.devices) for host in hosts] == [
    ('10.0.0.11', 4, None), ('10.0.0.12', 2, '0,1')]  # fmt: skip
  # The same commands, with this machine as the only host.
  with open(os.path.join(page.code, 'hosts.csv'), 'w', encoding='utf-8') as file:
    file.write('job,ip,slots\nrun,localhost,6\n')
  push, sweep, status, again, pull, stop = commands_of(PAGE, 'On several hosts')
  assert '--action=push' in push
  begun = page(sweep, '--skip_check')
  assert begun.returncode == 0, begun.stderr
  page.wait_for(status, 6)
  assert [page(command).returncode for command in (again, pull, stop)] == [0, 0, 0]


@pytest.mark.parametrize(
  'words, said',
  [
    (['--action=sweep'], '--action=sweep needs a folder for its runs'),
    (['--action=sweep', '--logdir=runs/x'], '--logdir=runs/x has no sweep to go on with'),
    (['--action=sweep', '--logdir=x', '--seed=1'], '--seed=1 came as well'),
    (['--action=sweep', '--logdir=x', '--sweep=seed=1..2', '--task=-1'], '--task'),
    (['--action=sweep', '--logdir=x', '--sweep=seed=1..2', '--job_name=ps'], '--job_name'),
    (['--action=sweep', '--logdir=x', '--sweep=seed=1', '--lost_hosts=b'], 'b is no host'),
    (['--action=status', '--logdir=runs/x'], '--logdir=runs/x is not the folder of a sweep'),
    (['--action=status', '--logdir=runs/x', '--seed=1'], 'takes no training flags'),
    (['--action=pull', '--logdir=runs/x'], 'needs a folder to fetch to'),
    (['--action=status', '--slots=2', '--logdir=x'], '--slots belongs to sweep'),
    (['--action=sweep', '--logdir=x', '--cluster_csv_path=hosts.csv', '--slots=2'],
     'each host has its column slots'),
    (['--action=launch', '--cluster_csv_path=hosts.csv'], 'has the hosts of a sweep'),
    (['--action=sweep', '--logdir=x', f'--cluster_csv_path={ROOT}/local_cluster_example.csv'],
     'describes a cluster'),
    (['--action=sweep', '--logdir=x', '--cluster_csv_path=bad.csv'],
     "bad.csv line 3, column job: 'ps' beside rows run"),
    (['--action=sweep', '--logdir=x', '--cluster_csv_path=bad.csv'],
     'bad.csv line 2, column slots'),
  ],
)  # fmt: skip
def test_bad_input_is_exit_2_and_nothing_begins(page, own_tmux, words, said):  # noqa: F811
  for name, rows in (('hosts', 'run,localhost,3\n'), ('bad', 'run,localhost,0\nps,localhost,1\n')):
    with open(os.path.join(page.code, f'{name}.csv'), 'w', encoding='utf-8') as file:
      file.write('job,ip,slots\n' + rows)
  result = page(['python', 'run_experiment_mm_raw.py', *words])
  assert result.returncode == 2, result.stderr
  assert said in result.stderr and 'Traceback' not in result.stderr
  assert not os.path.exists(os.path.join(page.code, 'runs')) and own_tmux.sessions() == []
