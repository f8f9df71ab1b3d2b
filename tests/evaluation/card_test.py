"""evaluation.card: what it says of a real run of CartPole, and what it leaves to itself."""

import json
import os
import shutil

import pytest

from conftest import ROOT
from evaluation import card, records

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
  assert text.startswith('---\nlicense: apache-2.0\ntags:\n- "reinforcement-learning"\n')
  assert '      value: 25.00 +/- 5.00\n' in text  # Of the exported checkpoint, not the newest.
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


def test_without_evaluations_metrics_and_record_it_says_what_it_can(run):
  for name in ('metrics.csv', 'run.json'):
    os.remove(run / name)
  text, files = written(run, {}, environment_frames=None, level_name='impala/Catch-v0')
  assert files == {card.NAME}
  assert 'It was not evaluated.' in text and '.png' not in text and '## A game' not in text
  assert 'model-index' not in text and 'an environment of the code that trained it' in text
  assert 'python experiment.py --level_name=impala/Catch-v0 --agent_name=MLPAgent\n' in text


def test_flags_that_differ_from_their_defaults_and_nothing_of_where_it_ran(run, record):
  defaults = {**record['flags'], 'learning_rate': 0.0006, 'sync_learners': False, 'seed': 1}
  record['flags'] |= dict(ps_hosts=['secret-host:8000'], logdir='/home/somebody/run', task=3)
  changed = card.changed_flags(POLICY, record, defaults)
  assert changed == dict(
    level_name='CartPole-v1', agent_name='MLPAgent', sync_learners=True, learning_rate=0.001
  )
  text, _ = written(run, record, defaults)
  command = '--level_name=CartPole-v1 --agent_name=MLPAgent --sync_learners=true'
  assert f'python experiment.py {command} --learning_rate=0.001\n' in text
  assert '| `learning_rate` | 0.001 |' in text
  assert 'secret-host' not in text and 'somebody' not in text
