"""A cluster on this machine, in a real tmux, whose tasks are a small scripted program.

A test that takes `local` imports `local_fixture` and `own_tmux`.
"""

import json
import os
import signal

import pytest

import conftest
import frontend_fixtures
import network_fixtures
from frontend_fixtures import own_tmux  # noqa: F401

# Flags: --fail=NAME (that task ends at once with exit 1), --stay (others do not follow the chief),
# --clumsy=NAME (that task fails when it should follow).
STAND_IN = """
import json, os, signal, sys, time
flags = dict((word.lstrip('-').split('=', 1) + [''])[:2] for word in sys.argv[1:])
if 'only_check_args' in flags:
  sys.exit(0)
name = flags['job_name'] + '-' + flags['task']
print('arguments of', name, ascii(sys.argv[1:]), flush=True)
print('gpus', ascii(os.environ.get('CUDA_VISIBLE_DEVICES')), 'in', os.getcwd(), flush=True)
if flags.get('fail') == name:
  sys.exit('no such luck')
ended, frames = [], 0
signal.signal(signal.SIGTERM, lambda *_: ended.append(1))
while True:
  state = dict(pid=os.getpid(), phase='training', frames_per_sec=1234.5, last_seen=time.time())
  if name == 'learner-0':
    frames += 100
    state.update(logdir=os.path.abspath('runs'), environment_frames=frames,
                 mean_return_100=float(frames % 700),
                 learner_wait_fraction=0.71, actor_wait_fraction=None)
  path = os.path.join(flags['state_dir'], name + '.json')
  open(path + '.new', 'w').write(json.dumps(state))
  os.replace(path + '.new', path)
  if ended and name == 'learner-0':
    open('done', 'w').close()
  if flags.get('clumsy') == name and os.path.exists('done'):
    sys.exit(1)
  if ended or (os.path.exists('done') and 'stay' not in flags):
    print('I leave', flush=True)
    sys.exit(0)
  time.sleep(0.1)
"""


class Local:
  """A cluster of 1 ps, 1 learner and 2 actors in a copy of the code, on a tmux of its own."""

  def __init__(self, folder, tmux, columns='', cells=''):
    self.tmux = tmux
    self.code = frontend_fixtures.copy_code(folder, STAND_IN)
    ports = conftest.free_ports(4)
    self.csv = os.path.join(self.code, 'c.csv')
    self.write_csv(
      'job,ip,tf_port' + columns,
      [f'{job},localhost,{port}{cells}'
       for job, port in zip(('ps', 'learner', 'actor', 'actor'), ports)])  # fmt: skip
    self.ports = ports

  def write_csv(self, *parts):
    header, rows = parts
    with open(self.csv, 'w', encoding='utf-8') as file:
      file.write('\n'.join([header, *rows]))

  def words(self, action, *words):
    return [f'--cluster_csv_path={self.csv}', f'--tmux_socket={self.tmux.path}', '--tmux_sess=imp',
            f'--action={action}', *words]  # fmt: skip

  def run(self, action, *words):
    return frontend_fixtures.frontend(self.words(action, *words), self.code)

  def launch(self, *words):
    # What `check` needs beyond this program is tested with hosts of their own.
    return self.run('launch', '--skip_check', *words)

  def rows(self):
    return {row['task']: row for row in json.loads(self.run('status', '--json').stdout)}

  def log(self, task):
    with open(os.path.join(self.code, '.cluster', 'imp', f'{task}.log'), encoding='utf-8') as file:
      return file.read()

  def ask_chief_to_end(self):
    """Ends the run as at its last frame: the chief ends, and the other tasks follow."""
    path = os.path.join(self.code, '.cluster', 'imp', 'learner-0.json')
    with open(path, encoding='utf-8') as file:
      os.kill(json.load(file)['pid'], signal.SIGTERM)

  def pids(self):
    """Ids of the processes of this cluster, supervisors included."""
    names = ('.cluster', 'run_experiment_mm_raw.py')
    return [
      pid
      for name in names
      for pid in frontend_fixtures.with_argument(os.path.join(self.code, name))
    ]


@pytest.fixture(name='local')
def local_fixture(tmp_path, own_tmux):  # noqa: F811
  made = Local(tmp_path / 'code', own_tmux)
  yield made
  network_fixtures.end_processes(made.pids())
