"""A run with records, launched from a copy of the code on this machine or behind an sshd.

A test that takes `recorded` imports `recorded_fixture`, and what its parameter `place` needs.
"""

import json
import os
import sys

import pytest

import conftest
import frontend_fixtures
from frontend.host_side import supervisor
from network_fixtures import sshd  # noqa: F401
from reporting import run_record


class Recorded:
  """A host with a run, and the frontend that asks for it.

  Args:
    folder: for all files; it must not exist.
    place: words of a row of the CSV that say how the host is reached: address and SSH port.
    home: HOME of the frontend.
  """

  def __init__(self, folder, place, home):
    self.code = frontend_fixtures.copy_code(os.path.join(folder, "a 'code' $(folder)"))
    self.home = str(home)
    self.logdir = os.path.join(self.code, 'runs', 'a; run')
    self.csv = os.path.join(folder, 'c.csv')
    ports = conftest.free_ports(3)
    rows = [
      f'{job},{place[0]},{port},{place[1]},"{self.code}",{sys.executable}'
      for job, port in zip(('ps', 'learner', 'actor'), ports)
    ]
    with open(self.csv, 'w', encoding='utf-8') as file:
      file.write('\n'.join(['job,ip,tf_port,ssh_port,workdir,python', *rows]))

  def launched(self):
    """Writes the files of a launch and of its chief."""
    folder = os.path.join(self.code, '.cluster', 'impala')
    os.makedirs(folder)
    argv = ['python', 'experiment.py', '--logdir=other', '--logdir', 'runs/a; run']
    spec = supervisor.Spec('learner-0', argv, {}, 'never', 0)
    supervisor.write_json(supervisor.path_of(folder, 'learner-0', 'spec.json'), spec._asdict())
    self.starts('run 1')
    names = 'metrics.csv', 'episodes.csv', 'learning_curve.png', 'evaluation.json'
    for name in (*names, 'evaluations.csv'):
      self.write(name, f'{name}\n')
    return self

  def starts(self, name):
    """Marks a start, or a restart, of the chief."""
    run_record.write_run_json(self.logdir, {'seed': 1}, {'settings': {'level_name': name}})

  def write(self, name, text):
    """Writes a file of the run."""
    with open(os.path.join(self.logdir, name), 'w', encoding='utf-8') as file:
      file.write(text)

  def checkpoint(self, *updates):
    """The chief's checkpoints are those, the newest last."""
    for name in os.listdir(self.logdir):
      if name.startswith('model.ckpt'):
        os.remove(os.path.join(self.logdir, name))
    for number in updates:
      self.write(f'model.ckpt-{number}.data-00000-of-00001', 100 * f'weights {number}')
      self.write(f'model.ckpt-{number}.index', f'index {number}')
    lines = [f'model_checkpoint_path: "model.ckpt-{updates[-1]}"']
    lines += [f'all_model_checkpoint_paths: "model.ckpt-{number}"' for number in updates]
    self.write('checkpoint', '\n'.join(lines) + '\n')

  def words(self, action, *words):
    """What follows the program's name."""
    return [f'--cluster_csv_path={self.csv}', f'--action={action}', *words]

  def run(self, action, *words):
    """Runs an action to its end."""
    return frontend_fixtures.frontend(self.words(action, *words), HOME=self.home, SSH_AUTH_SOCK='')

  def record(self):
    """The run.json as a dict."""
    with open(os.path.join(self.logdir, 'run.json'), encoding='utf-8') as file:
      return json.load(file)


@pytest.fixture(name='recorded', params=['here', 'over SSH'])
def recorded_fixture(request, tmp_path, sshd):  # noqa: F811
  """A `Recorded` that was not launched so far."""
  place = ('localhost', '') if request.param == 'here' else (sshd.address, sshd.port)
  return Recorded(str(tmp_path / 'host'), place, sshd.home)
