"""A run whose environment has several observations, several actions and an action mask."""

import csv
import json
import os
import subprocess
import sys

import pytest

import mixed_env
from conftest import ROOT

LIMIT_SECS = 240.0
TESTS = os.path.join(ROOT, 'tests')
LEVEL = '--level_name=mixed_env:Levers-v0'

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """The folder of a run that has learned; a text is among its observations."""
  folder = str(tmp_path_factory.mktemp('levers') / 'run')
  output = command(
    folder, '--observation_keys=image,steps,mission', '--observation_scaling=running',
    '--total_environment_frames=24000', '--num_actors=1', '--envs_per_actor=8', '--batch_size=8',
    '--unroll_length=10', '--optimizer=adam', '--learning_rate=5e-4', '--entropy_cost=0.001',
    '--metrics_secs=1', '--seed=3',
  )  # fmt: skip
  assert 'crashed' not in output  # The forbidden lever, which an agent without mask soon chooses.
  return folder


def command(folder, *flags):
  """Output of experiment.py; it has to end with 0."""
  words = [sys.executable, os.path.join(ROOT, 'experiment.py'), LEVEL, f'--logdir={folder}', *flags]
  return output_of(words)


def output_of(words):
  done = subprocess.run(
    words, env={**os.environ, 'PYTHONPATH': TESTS}, stdin=subprocess.DEVNULL,
    stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=LIMIT_SECS,
  )  # fmt: skip
  assert done.returncode == 0, done.stdout
  return done.stdout


def test_it_learns_the_second_best_lever_and_the_dial(run):
  """Of 4: 0.4 is what random actions get that never choose the forbidden lever."""
  with open(os.path.join(run, 'metrics.csv'), newline='') as file:
    rows = list(csv.DictReader(file))
  assert float(rows[-1]['mean_return_100']) > 0.7 * mixed_env.BEST_RETURN
  assert 0 < float(rows[-1]['truncated_weights']) < 1


def test_test_export_and_video_know_its_spaces(run):
  games = command(run, '--mode=test', '--test_num_episodes=20', '--deterministic')
  mean = float(games.rpartition('mean ')[2].split()[0].rstrip(';,'))
  assert mean > 0.8 * mixed_env.BEST_RETURN, games
  command(run, '--mode=video', '--annotate', '--num_episodes=1')
  assert os.path.getsize(os.path.join(run, 'video.webm')) > 0
  command(run, '--mode=export')
  with open(os.path.join(run, 'export', 'policy.json'), encoding='utf-8') as file:
    policy = json.load(file)
  names = ['image', 'mission', 'steps_0', 'steps_1', 'action_mask']
  assert [array['input'] for array in policy['observation']] == [f'observation_{n}' for n in names]
  dial, lever = policy['action']
  assert (dial['kind'], dial['low'], dial['high']) == ('continuous', [0.0], [10.0])
  assert (lever['kind'], lever['size']) == ('discrete', 3)
  played = output_of([sys.executable, os.path.join(run, 'export', 'play_exported.py')])
  assert float(played.split()[-1]) > 0.4 * mixed_env.BEST_RETURN, played
