"""The README tells of every flag and file, and of no others; its commands of a cluster run."""

import json
import os
import re
import shlex
import socket
import subprocess
import sys

import pytest

from cluster_fixtures import LIMIT_SECS
from conftest import ROOT, free_ports

# Words of the table of flags that are values of a flag.
VALUES = {
  'run',
  'train',
  'test',
  'plot',
  'video',
  'export',
  'sizes',
  'flags',
  'tf_config',
  'slurm',
  'auto',
  'training',
  'paper',
  'machado',
  'last',
  'best',
  'end_run',
  'leave',
}


def section(title):
  """The text below a heading, up to the next one of the same level."""
  with open(os.path.join(ROOT, 'README.md'), encoding='utf-8') as file:
    return file.read().split(f'\n## {title}\n')[1].split('\n## ')[0]


def test_the_table_of_flags_is_complete():
  help_text = subprocess.run(
    [sys.executable, 'experiment.py', '--help'],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=120,
    check=True,
  ).stdout
  flags = set(re.findall(r'^ *--(?:\[no\])?(\w+)', help_text, re.M)) - {'only_check_args'}
  table = [line for line in section('Flags of `experiment.py`').splitlines() if line[:1] == '|']
  assert set(re.findall(r'`(\w+)`', '\n'.join(table))) - VALUES == flags


def test_the_table_of_files_is_complete():
  names = re.findall(
    r'`([^`]+)`',
    ' '.join(line.split('|')[1] for line in section('Files').splitlines() if line[:1] == '|'),
  )
  assert [name for name in names if not os.path.exists(os.path.join(ROOT, name))] == []
  programs = {name for name in os.listdir(ROOT) if name.endswith('.py')}
  assert programs <= set(names)


def readme_blocks():
  """The commands of the README's two examples of a cluster, as lists of words."""
  with open(os.path.join(ROOT, 'README.md'), encoding='utf-8') as file:
    text = file.read().replace('\\\n', ' ')
  text = text.split('### With Native Distributed Tensorflow')[1].split('### With')[0]
  blocks = re.findall(r'```bash\n# \d learners? \d actors?\n(.*?)```', text, re.S)
  return [
    [shlex.split(command) for command in re.split(r'(?m)^(?=python )', block) if command.strip()]
    for block in blocks
  ]


def other_ports_where_taken(commands):
  """The commands, with free ports for those printed if somebody listens on one of them."""
  ports = sorted(set(re.findall(r'localhost:(\d+)', str(commands))))
  taken = False
  for port in ports:
    with socket.socket() as probe:
      taken |= probe.connect_ex(('127.0.0.1', int(port))) == 0
  new = dict(zip(ports, map(str, free_ports(len(ports))))) if taken else {}
  return [
    [re.sub(r'(?<=localhost:)\d+', lambda m: new.get(m[0], m[0]), word) for word in command]
    for command in commands
  ]


@pytest.mark.cluster
@pytest.mark.parametrize('block', [0, 1], ids=['1 learner 1 actor', '2 learners 3 actors'])
def test_the_commands_of_the_readme_as_printed(processes, tmp_path, block):
  commands = other_ports_where_taken(readme_blocks()[block])
  assert len(commands) == [3, 6][block]
  tasks = []
  for i, (python, program, *flags) in enumerate(commands):
    assert (python, program) == ('python', 'experiment.py')
    flags = [f.replace('=10000000000', '=2000') for f in flags]
    tasks.append(
      processes.start(os.path.join(ROOT, program), *flags, name=f'task{i}', cwd=tmp_path)
    )
  for task in tasks:
    assert task.exit_code(LIMIT_SECS) == 0, '\n'.join(t.output()[-2000:] for t in tasks)
  logdir = tmp_path / 'runs' / 'BreakoutNoFrameskip-v4-SimpleConvNetAgent-seed1'
  assert (logdir / 'checkpoint').exists() and (logdir / 'metrics.csv').exists()


def test_more_actors_join_by_commands_that_are_understood(tmp_path):
  with open(os.path.join(ROOT, 'README.md'), encoding='utf-8') as file:
    block = re.search(r'```bash\n# more actors\n(.*?)```', file.read(), re.S)[1]
  commands = [shlex.split(c) for c in block.replace('\\\n', ' ').splitlines()]
  hosts = dict(f[2:].split('_hosts=') for f in commands[1] if '_hosts=' in f)
  folder = tmp_path / commands[0][3].removeprefix('--logdir=')
  folder.mkdir(parents=True)
  (folder / 'cluster.json').write_text(json.dumps({j: h.split(',') for j, h in hosts.items()}))
  for _, program, *flags in commands:
    done = subprocess.run(
      [sys.executable, os.path.join(ROOT, program), *flags, '--only_check_args'],
      cwd=tmp_path,
      capture_output=True,
      text=True,
    )
    assert done.returncode == 0, done.stderr
