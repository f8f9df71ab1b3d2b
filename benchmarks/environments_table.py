"""Tries environments of many packages: checks each one, then trains on it for some seconds.

  python benchmarks/environments_table.py --secs=20 --out=OUT [--packages=mujoco,minigrid]

Writes OUT/result.json after each environment and prints a table in Markdown. A package that is not
installed is left out and named. An environment that is refused, or that trains on no frame, has the
last line of the output in place of figures. All are trained with the settings of
flagfiles/vector.flags and the network that --agent_name=auto chooses.
"""

import argparse
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
import time

from clusters import ROOT, exit_on_sigterm, interrupt, process_group, whole_rows

sys.path.insert(0, ROOT)

from common import files

START_SECS = 120.0  # Limit for the check, and for the time until the first update.
END_SECS = 60.0  # Limit for a run to end after a signal.

# Package on PyPI -> [(id, further flags)].
ENVIRONMENTS = {
  'gymnasium': [
    *((name, []) for name in ('CartPole-v1', 'Acrobot-v1', 'MountainCar-v0', 'Pendulum-v1')),
    ('MountainCarContinuous-v0', []),
    *((name, []) for name in ('Taxi-v4', 'CliffWalking-v1', 'Blackjack-v1')),
    ('FrozenLake-v1', ['--env_kwargs={"is_slippery": false}']),
  ],
  'box2d': [
    ('LunarLander-v3', []),
    ('LunarLander-v3', ['--env_kwargs={"continuous": true}']),
    ('BipedalWalker-v3', []),
    ('CarRacing-v3', []),
    ('CarRacing-v3', ['--env_kwargs={"continuous": false}']),
  ],
  'mujoco': [
    (f'{name}-v5', [])
    for name in (
      'InvertedPendulum', 'InvertedDoublePendulum', 'Reacher', 'Swimmer', 'Hopper', 'Walker2d',
      'HalfCheetah', 'Ant', 'Humanoid',
    )
  ],
  'ale-py': [
    (name, [])
    for name in (
      'PongNoFrameskip-v4', 'PongDeterministic-v4', 'Pong-v4', 'Pong-v0', 'ALE/Pong-v5',
      'Pong-ram-v4', 'Pong-ramNoFrameskip-v4', 'BreakoutDeterministic-v0',
    )
  ],
  'minigrid': [
    ('MiniGrid-Empty-Random-5x5-v0', ['--import=minigrid']),
    ('MiniGrid-DoorKey-5x5-v0', ['--import=minigrid']),
    (
      'MiniGrid-DoorKey-5x5-v0',
      ['--import=minigrid', '--observation_keys=image,direction,mission'],
    ),
    ('MiniGrid-KeyCorridorS3R1-v0', ['--import=minigrid']),
    ('BabyAI-GoToRedBall-v0', ['--import=minigrid']),
  ],
  'minatar': [
    (f'MinAtar/{name}-v1', []) for name in ('Breakout', 'Asterix', 'Freeway', 'SpaceInvaders')
  ],
  'highway-env': [(f'{name}-v0', ['--import=highway_env']) for name in ('highway', 'parking')],
  'flappy-bird-gymnasium': [('FlappyBird-v0', ['--import=flappy_bird_gymnasium'])],
  'vizdoom': [
    ('VizdoomBasic-v1', ['--import=vizdoom.gymnasium_wrapper', '--observation_keys=screen'])
  ],
  'gymnasium-robotics': [
    (name, ['--import=gymnasium_robotics']) for name in ('PointMaze_UMaze-v3', 'AdroitHandDoor-v1')
  ],
  'dm_control': [('dm_control/cartpole-balance-v0', ['--import=shimmy'])],
  'mo-gymnasium': [
    (
      'deep-sea-treasure-v0',
      ['--import=mo_gymnasium',
       '--env_wrappers=mo_gymnasium.wrappers.LinearReward:{"weight": [0.5, 0.5]}'],
    )
  ],
  'panda-gym': [('PandaReach-v3', ['--import=panda_gym'])],
  'pybullet_envs_gymnasium': [('HopperBulletEnv-v0', ['--import=pybullet_envs_gymnasium'])],
  'PyFlyt': [('PyFlyt/QuadX-Hover-v4', ['--import=PyFlyt.gym_envs'])],
  'metaworld': [
    ('Meta-World/MT1', ['--import=metaworld', '--env_kwargs={"env_name": "reach-v3"}'])
  ],
  'popgym': [
    (f'popgym-{name}Easy-v0', ['--import=popgym']) for name in ('Autoencode', 'Battleship')
  ],
  'memory-gym': [('MortarMayhem-Grid-v0', ['--import=memory_gym'])],
  'miniworld': [('MiniWorld-Hallway-v0', ['--import=miniworld'])],
  'tetris-gymnasium': [('tetris_gymnasium/Tetris', ['--import=tetris_gymnasium.envs'])],
  'gym-anytrading': [('stocks-v0', ['--import=gym_anytrading'])],
  'carl-bench': [('carl/CARLCartPole-v0', ['--import=carl'])],
  'rware': [('rware-tiny-1ag-easy-v2', ['--import=rware'])],
  'nle': [('NetHackScore-v0', ['--import=nle', '--observation_keys=blstats,glyphs'])],
  # With OpenAI Gym only.
  'crafter': [('CrafterReward-v1', ['--import=crafter'])],
  'gym-sokoban': [('Sokoban-small-v1', ['--import=gym_sokoban'])],
  'procgen-mirror': [('procgen-coinrun-v0', ['--import=procgen'])],
}  # fmt: skip


def run(words, folder, secs, begun=lambda: True):
  """Runs experiment.py until it ends, or until `secs` after `begun()`.

  Returns:
    (exit code, or None if it was ended; output).
  """
  command = [sys.executable, os.path.join(ROOT, 'experiment.py'), *words]
  with open(os.path.join(folder, 'log'), 'w+', encoding='utf-8', errors='replace') as log:
    give_up = time.monotonic() + START_SECS
    with process_group(command, stdout=log, stderr=subprocess.STDOUT, cwd=folder) as process:
      while process.poll() is None and not begun() and time.monotonic() < give_up:
        time.sleep(0.2)
      try:
        code = process.wait(secs)
      except subprocess.TimeoutExpired:
        code = None
        interrupt(process, END_SECS)
    log.seek(0)
    return code, log.read()


def figures(logdir):
  """Returns (frames, frames per second, mean return or None) of a run's metrics."""
  rows = whole_rows(os.path.join(logdir, 'metrics.csv'))
  rows = [row for row in rows if row['updates'] not in ('', '0')]
  if len(rows) < 2:
    return (int(rows[-1]['environment_frames']) if rows else 0), None, None
  first, last = rows[0], rows[-1]
  frames = int(last['environment_frames'])
  passed = float(last['time']) - float(first['time'])
  rate = (frames - int(first['environment_frames'])) / passed
  return frames, rate, float(last['mean_return_100'] or 'nan')


def last_line(output, code):
  """Returns the last line of a program's output, or what is known of one that wrote nothing."""
  lines = output.strip().splitlines()
  return lines[-1] if lines else 'no output' if code is None else f'exit code {code}'


def trial(name, flags, secs):
  """Checks and trains on one environment; returns a dict for the table."""
  row = dict(id=name, flags=flags)
  # A child that is killed last may still write while the folder is removed.
  with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
    words = [f'--level_name={name}', *flags]
    code, output = run([*words, '--only_check_args'], folder, START_SECS)
    if code != 0:
      return {**row, 'refused': last_line(output, code)}
    preset = os.path.join(ROOT, 'flagfiles', 'vector.flags')
    logdir = os.path.join(folder, 'run')
    more = [f'--flagfile={preset}', f'--logdir={logdir}', '--metrics_secs=1',
            '--total_environment_frames=1000000000']  # fmt: skip
    code, output = run([*more, *words], folder, secs, lambda: figures(logdir)[0] > 0)
    frames, rate, mean = figures(logdir)
    if not frames:  # Perhaps it died before it wrote run.json.
      return {**row, 'failed': last_line(output, code)}
    with open(os.path.join(logdir, 'run.json'), encoding='utf-8') as file:
      settings = json.load(file)['settings']
    spaces = {key: settings[key] for key in ('observation', 'action', 'agent_name')}
    return {**row, **spaces, 'frames': frames, 'frames_per_sec': rate, 'mean_return': mean}


def line(package, row):
  """Returns a row of the table."""
  which = f'`{row["id"]}`' + ''.join(f' `{flag}`' for flag in row['flags'])
  if why := row.get('refused') or row.get('failed'):
    return f'| {package} | {which} | {why} | | | |'
  shapes = ', '.join(f'{n} {d} {s}'.strip() for n, s, d in row['observation'])
  parts = ', '.join(f'{n} {kind}' for kind, n, *_ in row['action'])
  rate = '' if row['frames_per_sec'] is None else f'{row["frames_per_sec"]:.0f}'
  return f'| {package} | {which} | {shapes} | {parts} | {row["agent_name"]} | {rate} |'


def save(out, secs, found):
  """Writes result.json, atomically."""
  text = json.dumps(dict(secs=secs, time=time.time(), environments=found), indent=2)
  files.write_whole(os.path.join(out, 'result.json'), text)


def installed(package):
  """Returns the version of a package, or None."""
  try:
    return importlib.metadata.version(package)
  except importlib.metadata.PackageNotFoundError:
    return None


def main():
  """Tries all environments and writes the results."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--secs', type=float, default=20.0, help='of training per environment')
  parser.add_argument('--out', required=True, help='folder of result.json')
  parser.add_argument('--packages', default='', help='with commas; all if left out')
  args = parser.parse_args()
  exit_on_sigterm()
  os.makedirs(args.out, exist_ok=True)
  found, missing = {}, []
  print('| package | id | observations | actions | network | frames/s |')
  print('| --- | --- | --- | --- | --- | --- |')
  for package, environments in ENVIRONMENTS.items():
    if args.packages and package not in args.packages.split(','):
      continue
    version = installed(package)
    if version is None:
      missing.append(package)
      continue
    for name, flags in environments:
      row = trial(name, flags, args.secs)
      found.setdefault(f'{package} {version}', []).append(row)
      save(args.out, args.secs, found)
      print(line(f'{package} {version}', row), flush=True)
  if missing:
    print(f'\nnot installed: {", ".join(missing)}')


if __name__ == '__main__':
  main()
