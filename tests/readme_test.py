"""The documentation: commands and examples work, links lead somewhere, lists are complete."""

import copy
import glob
import json
import os
import re
import shlex
import socket
import subprocess
import sys
from importlib.util import find_spec

import pytest

import run_experiment_mm_raw as frontend
from cluster_fixtures import LIMIT_SECS
from conftest import ROOT, blocks_of, checked, commands_of, free_ports, section, whole_rows
from frontend import arguments

PAGES = ['README.md', 'CONTRIBUTING.md', *sorted(glob.glob('docs/*.md', root_dir=ROOT))]


def text_of(path):
  with open(os.path.join(ROOT, path), encoding='utf-8') as file:
    return file.read()


def test_the_table_of_files_is_complete():
  names = re.findall(
    r'`([^`]+)`',
    ' '.join(
      line.split('|')[1]
      for line in section('docs/design.md', 'Packages and modules').splitlines()
      if line[:1] == '|'
    ),
  )
  assert [name for name in names if not os.path.exists(os.path.join(ROOT, name))] == []
  programs = {name for name in os.listdir(ROOT) if name.endswith('.py')}
  packages = {
    f'{name}/' for name in os.listdir(ROOT) if os.path.exists(f'{ROOT}/{name}/__init__.py')
  }
  assert programs | packages <= set(names)


def anchors(path):
  """The anchors that GitHub gives the headings of a page."""
  headings = re.findall(r'^#+ (.*)$', re.sub(r'```.*?```', '', text_of(path), flags=re.S), re.M)
  return {re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-') for heading in headings}


@pytest.mark.parametrize('path', [*PAGES, 'docs/results/README.md'])
def test_links_lead_to_files_and_headings(path):
  for target in re.findall(r'\]\((?!https?:)([^)]+)\)', text_of(path)):
    name, _, anchor = target.partition('#')
    there = os.path.normpath(os.path.join(os.path.dirname(path), name)) if name else path
    assert os.path.exists(os.path.join(ROOT, there)), target
    assert not anchor or anchor in anchors(there), target


def title_of(path):
  return re.match(r'# (.*)', text_of(path))[1]


# Sections whose commands no other test runs; servers.md, after_training.md and the clusters of the
# README are run as printed, by the tests of the frontend, of modes, and below.
UNDERSTOOD = [
  ('README.md', 'First steps'),
  ('README.md', 'With Frontend Code'),
  ('README.md', 'Many Runs at Once'),
  ('docs/training.md', 'One process'),
  ('docs/training.md', 'Runs that repeat'),
  ('docs/many_levels.md', 'Start'),
  ('docs/many_levels.md', 'Returns of different sizes'),
  ('docs/environments_and_agents.md', 'Environments'),
  ('docs/environments_and_agents.md', 'Keywords and wrappers'),
  ('docs/cluster_managers.md', 'Slurm, Kubernetes, TF_CONFIG'),
]


def commands_to_understand(program):
  """Flags of the commands `python program ...` in the sections above."""
  commands = [words for place in UNDERSTOOD for words in commands_of(*place)]
  return [words[2:] for words in commands if words[:2] == ['python', program]]


TRAINER = commands_to_understand('experiment.py')
FRONTEND = commands_to_understand('run_experiment_mm_raw.py')
# What slurm/sweep.sbatch makes of its flags.
FRONTEND += [
  ['--action=sweep', '--element=0', *words[words.index('slurm/sweep.sbatch') + 1 :]]
  for words in commands_of('docs/many_runs.md', 'Slurm')
]


def test_there_are_commands():
  assert len(TRAINER) >= 6 and len(FRONTEND) >= 6


def refusal(flags):
  """What experiment.py says against flags; '' where it understands them."""
  result = checked(*flags, '--only_check_args')
  return '' if result.returncode == 0 else result.stdout + result.stderr


@pytest.mark.parametrize('flags', TRAINER, ids=' '.join)
def test_the_trainer_understands(flags):
  assert '--help' in flags or refusal(flags) == ''


@pytest.mark.parametrize('words', FRONTEND, ids=' '.join)
def test_the_frontend_understands(words):
  own, training = arguments.split_arguments(words, frontend.FLAGS, frontend.ACTIONS)
  copy.deepcopy(frontend.FLAGS)(['frontend', *own])
  assert not training or refusal(training) == ''


def test_what_make_and_sbatch_are_given_is_there():
  targets = re.findall(r'^(\w+):', text_of('Makefile'), re.M)
  commands = [words for path in PAGES for words in commands_of(path, title_of(path))]
  made = [words[1] for words in commands if words[0] == 'make']
  scripts = [w for words in commands if 'sbatch' in words for w in words if w.endswith('.sbatch')]
  assert {'train', 'quick', 'test'} <= set(made) <= set(targets)
  assert scripts and all(os.path.exists(os.path.join(ROOT, script)) for script in scripts)


def documented_clusters():
  """The commands of the README's two examples of a cluster, as lists of words."""
  text = text_of('README.md').replace('\\\n', ' ')
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
  commands = other_ports_where_taken(documented_clusters()[block])
  assert len(commands) == [3, 6][block]
  tasks = []
  for i, (python, program, *flags) in enumerate(commands):
    assert (python, program) == ('python', 'experiment.py')
    flags = [f.replace('=10000000000', '=2000') for f in flags]
    if not block:  # As a user starts it; the others are forks.
      program = os.path.join(ROOT, program)
    tasks.append(processes.start(program, *flags, name=f'task{i}', cwd=tmp_path))
  for task in tasks:
    assert task.exit_code(LIMIT_SECS) == 0, '\n'.join(t.output()[-2000:] for t in tasks)
  logdir = tmp_path / 'runs' / 'BreakoutNoFrameskip-v4-SimpleConvNetAgent-seed1'
  assert (logdir / 'checkpoint').exists() and (logdir / 'metrics.csv').exists()


def test_more_actors_join_by_commands_that_are_understood(tmp_path):
  commands = commands_of('docs/training.md', 'Actors that join')
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


# Examples in Python.

ENVIRONMENTS = 'docs/environments_and_agents.md'


def run_python(code, folder):
  return subprocess.run(
    [sys.executable, '-c', code], cwd=folder, capture_output=True, text=True, timeout=200,
    env={**os.environ, 'PYTHONPATH': ROOT})  # fmt: skip


def test_the_examples_for_a_notebook_run(tmp_path):
  targets, returns = blocks_of(ENVIRONMENTS, 'From a script or a notebook', 'python')
  result = run_python(targets, tmp_path)
  assert result.returncode == 0, result.stderr
  first = [float(number) for number in re.findall(r'[\d.]+', result.stdout)][0]
  assert first == pytest.approx(sum(0.99**t for t in range(5)))
  result = run_python(returns, tmp_path)
  assert result.returncode == 0, result.stderr
  assert len(re.findall(r'\d+\.', result.stdout)) == 4


@pytest.mark.slow
def test_the_environment_of_the_documentation_is_learned(tmp_path, processes):
  (example,) = blocks_of(ENVIRONMENTS, 'Your own environment', 'python')
  (tmp_path / 'my_games.py').write_text(example)
  os.symlink(os.path.join(ROOT, 'flagfiles'), tmp_path / 'flagfiles')
  ((assignment, python, program, *flags),) = commands_of(ENVIRONMENTS, 'Your own environment')
  assert (python, program) == ('python', 'experiment.py')
  name, _, value = assignment.partition('=')
  run = processes.start(
    os.path.join(ROOT, program), *flags, env={name: value}, cwd=tmp_path, name='own'
  )
  assert run.exit_code(LIMIT_SECS) == 0, run.output()
  last = re.findall(r'mean return of the last 100 games ([-\d.]+)', run.output())
  assert float(last[-1]) > 0.8, run.output()


@pytest.mark.slow
def test_the_network_of_the_documentation_trains_and_is_evaluated(tmp_path, processes):
  ((python, program, *flags),) = commands_of(ENVIRONMENTS, 'Your own network')
  assert (python, program) == ('python', 'experiment.py')
  flags += ['--total_environment_frames=1000', '--num_actors=1', f'--logdir={tmp_path}/run']
  flags += ['--eval_every_frames=500', '--test_num_episodes=2']
  run = processes.start(program, *flags, name='own')
  assert run.exit_code(LIMIT_SECS) == 0, run.output()
  assert len(whole_rows(tmp_path / 'run' / 'evaluations.csv')) >= 1, run.output()


@pytest.mark.parametrize('name', ['corridor', 'gru_agent', 'json_lines', 'mlflow_observer'])
def test_examples_are_short_and_say_how_they_are_run(name):
  text = text_of(f'examples/{name}.py')
  assert text.count('\n') < 60
  docstring = text.split('"""')[1].replace('\\\n', ' ')
  (command,) = re.findall(r'^ *python experiment.py (.*)', docstring, re.M)
  # Without the package of the tracker, its example is refused for this reason and no other.
  missing = 'mlflow' if name.startswith('mlflow') and not find_spec('mlflow') else ''
  said = refusal(shlex.split(command))
  assert f"No module named '{missing}'" in said if missing else said == ''
