"""evaluation.card: the card of a real run of CartPole, and what it must not contain."""

import json
import os
import re
import shutil
import subprocess

import pytest
import yaml

from conftest import ROOT
from evaluation import card, records
from reporting import commands

EARLIER = os.path.join(ROOT, 'tests', 'data', 'earlier_run')  # CartPole-v1, MLPAgent, Adam.
POLICY = dict(
  level_name='CartPole-v1',
  agent_name='MLPAgent',
  checkpoint='model.ckpt-24',
  environment_frames=3072,
  licence='Apache-2.0',
  preprocessing='observations go in as they are',
  atari=None,
)


class Played:
  scores, steps = [20.0, 30.0], 50


class PlayedWorse:
  scores, steps = [10.0, 20.0], 30


@pytest.fixture
def run(tmp_path):
  return shutil.copytree(EARLIER, tmp_path / 'run')


@pytest.fixture
def record(run):
  return json.loads((run / 'run.json').read_text())


def written(run, record, defaults=None, **policy):
  folder = run.parent / 'export'
  folder.mkdir()
  card.write(str(folder), str(run), {**POLICY, **policy}, record, defaults or {})
  return (folder / card.NAME).read_text(), {path.name for path in folder.iterdir()}


def metadata_of(text):
  assert text.startswith('---\n')
  return yaml.safe_load(text[4:].split('\n---\n', 1)[0])


def evaluate(run, checkpoint, frames, protocol, games=Played):
  result = records.summary('CartPole-v1', games, 1)
  result |= dict(protocol=protocol, deterministic=False, checkpoint_frames=frames)
  records.add(str(run), result, checkpoint)


def test_it_tells_of_the_run_and_what_lies_beside_it(run, record):
  (run / 'video.webp').write_bytes(b'film')
  evaluate(run, 'model.ckpt-24', 3072, 'training')
  evaluate(run, 'model.ckpt-12', 1536, 'training', PlayedWorse)
  text, files = written(run, record)
  assert files == {card.NAME, 'evaluation.json', 'learning_curve.png', 'video.webp'}
  metadata = metadata_of(text)
  assert metadata['license'] == 'apache-2.0'
  assert metadata['tags'] == [
    'reinforcement-learning', 'deep-reinforcement-learning', 'impala', 'CartPole-v1'
  ]  # fmt: skip
  (entry,) = metadata['model-index']
  (result,) = entry['results']
  assert entry['name'] == 'MLPAgent' and result['dataset']['name'] == 'CartPole-v1'
  # Of the exported checkpoint, not the newest.
  assert result['metrics'] == [
    dict(type='mean_reward', name='mean_reward', value='25.00 +/- 5.00', verified=False)
  ]
  for sentence in (
    '# MLPAgent on CartPole-v1\n\nTrained for 3,072 environment frames with IMPALA',
    'with TensorFlow 2.21.0; the checkpoint is `model.ckpt-24`. Commit of the code: a4944ee710',
    '| 1536 | training | sampled | 2 | 15.00 (10.00 to 20.00) | 15.00 |  |\n'
    '| **3072** | **training** | **sampled** | **2** | **25.00 (20.00 to 30.00)** | **25.00** |  |',
    '(learning_curve.png)',
    '![A game](video.webp)',
    'pip install tensorflow numpy gymnasium\npython play_exported.py',
    '## Licence\n\nApache-2.0\n',
  ):
    assert sentence in text, text


@pytest.mark.parametrize('level', ['on', '1e3', '~', "it's: a-v0", 'a\n---\n# b', '- x', 'ü'])
def test_the_metadata_of_any_level_is_read_back(run, record, level):
  evaluate(run, 'model.ckpt-24', 3072, 'training')
  text, _ = written(run, record, level_name=level)
  metadata = metadata_of(text)
  assert metadata['tags'][-1] == level
  assert metadata['model-index'][0]['results'][0]['dataset'] == dict(name=level, type=level)


def test_without_evaluations_metrics_and_record_it_says_what_it_can(run):
  for name in ('metrics.csv', 'run.json'):
    os.remove(run / name)
  text, files = written(run, {}, environment_frames=None, level_name='impala/Catch-v0')
  assert files == {card.NAME}
  assert 'It was not evaluated.' in text and '.png' not in text and '## A game' not in text
  assert 'model-index' not in text
  assert 'python experiment.py --level_name=impala/Catch-v0 --agent_name=MLPAgent\n' in text


def test_flags_that_differ_from_their_defaults_and_nothing_of_where_it_ran(run, record):
  defaults = {**record['flags'], 'learning_rate': 0.0006, 'sync_learners': False, 'seed': 1}
  record['flags'] |= dict(ps_hosts=['secret-host:8000'], logdir='/home/somebody/run', task=3)
  (command,) = commands.commands(record, defaults)
  changed = card.changed_flags(POLICY, command, defaults)
  assert changed == dict(
    level_name='CartPole-v1', agent_name='MLPAgent', sync_learners=True, learning_rate=0.001
  )
  text, _ = written(run, record, defaults)
  command = '--level_name=CartPole-v1 --agent_name=MLPAgent --sync_learners=true'
  assert f'python experiment.py {command} --learning_rate=0.001\n' in text
  assert '| `learning_rate` | 0.001 |' in text
  assert 'secret-host' not in text and 'somebody' not in text


def test_every_command_that_a_run_was_made_by_is_told(run, record):
  first = {**record, 'flags': {**record['flags'], 'init_from': '/home/somebody/runs/old:best'}}
  second = {**record, 'flags': {**record['flags'], 'learning_rate': 0.25}}
  second |= dict(git_commit='abc1-dirty', tasks={'ps': 1, 'learner': 2, 'actor': 3})
  third = {**second, 'started': '2026-12-01T00:00:00+00:00'}
  last = {**third, 'starts': ['no start', first, second, third]}
  defaults = {**record['flags'], 'learning_rate': 0.0006, 'init_from': ''}
  text, _ = written(run, last, defaults)
  told = re.findall(r'```bash\n(python experiment.*?)\n```', text, re.S)
  start = 'python experiment.py --level_name=CartPole-v1 --agent_name=MLPAgent'
  assert told == [
    f'{start} --learning_rate=0.001 --init_from=old:best',
    f'{start} --learning_rate=0.25',
  ]
  assert '- started at 2026-11-24T17:18:27+00:00, by commit a4944ee' in text
  with_tasks = 'with 1 parameter server, 2 learners, 3 actors, by commit abc1-dirty'
  assert f'- started 3 times, first at 2026-11-24T17:18:27+00:00, {with_tasks}' in text
  assert 'somebody' not in text and '| `learning_rate` | 0.25 |' in text
  everything = [commands.line(command.flags) for command in commands.commands(last, defaults)]
  assert len(everything) == 2 and all('--batch_size=4 ' in line for line in everything)


@pytest.mark.parametrize('value', [
    'a; touch ran', '$(touch ran)', "it's `touch ran` |", 'a\n```\n<script>', "\x1b[31m\\'\n",
    'ü  "$HOME"',
])  # fmt: skip
def test_a_value_is_neither_code_nor_the_end_of_a_block(run, record, value, tmp_path):
  record['flags']['reward_clipping'] = value
  defaults = {**record['flags'], 'reward_clipping': 'abs_one'}
  text, _ = written(run, record, defaults)
  (line,) = re.findall(r'```bash\n(python experiment.*?)\n```', text, re.S)
  echoed = 'python() { printf \'%s\\0\' "$@"; }\n' + line
  output = subprocess.run(
    ['bash', '-c', echoed], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=20
  ).stdout
  assert output.split('\0')[3] == f'--reward_clipping={value}'
  assert not (tmp_path / 'ran').exists()
  (row,) = [row for row in text.splitlines() if row.startswith('| `reward_clipping`')]
  assert re.sub(r'\\.', '', row).count('|') == 3 and ' <script>' not in row
