"""Simulators of other packages train with their presets: MuJoCo and MinAtar as they come."""

import csv
import json
import math

import numpy as np
import pytest

from runtime.checkpoints import Checkpoints, find

CASES = {
  'mujoco': ('Hopper-v5', 'SeparateMLPAgent', [['', [11], 'float32']], ['continuous', 3], 1024),
  'minatar': (
    'MinAtar/Breakout-v0', 'SimpleConvNetAgent', [['', [10, 10, 4], 'uint8']], ['discrete', 6], 1280
  ),
}  # fmt: skip


@pytest.mark.timeout(300)
@pytest.mark.parametrize('preset', CASES)
def test_a_preset_trains_on_its_family(preset, tmp_path, processes):
  level, agent, observation, action, frames = CASES[preset]
  run = processes.start(
    'experiment.py', f'--flagfile=flagfiles/{preset}.flags', f'--level_name={level}',
    '--initial_action_std=0.6',
    f'--total_environment_frames={frames}', f'--logdir={tmp_path}', '--metrics_secs=1',
    '--envs_per_worker=8',
  )  # fmt: skip
  assert run.exit_code(240) == 0, run.output()
  settings = json.loads((tmp_path / 'run.json').read_text())['settings']
  assert settings['agent_name'] == agent
  assert [[name, list(shape), dtype] for name, shape, dtype in settings['observation']] == (
    observation
  )
  assert list(settings['action'][0][:2]) == action
  with open(tmp_path / 'metrics.csv', newline='') as file:
    last = list(csv.DictReader(file))[-1]
  assert int(last['environment_frames']) >= frames
  assert math.isfinite(float(last['total_loss']))
  with open(tmp_path / 'episodes.csv', newline='') as file:
    returns = [float(row['episode_return']) for row in csv.DictReader(file)]
  assert returns and all(value >= 0 for value in returns)  # Both only give rewards.
  if preset == 'mujoco':
    std = np.exp(Checkpoints.value(find(str(tmp_path), 'last', ''), 'agent/log_std'))
    assert std == pytest.approx([0.6] * 3, abs=0.05)  # Hardly trained.
