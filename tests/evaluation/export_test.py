"""evaluation.export: the SavedModel plays as the checkpoint, without this code and Sonnet."""

import json
import os
import signal
import subprocess
import sys
import types

import gymnasium
import numpy as np
import pytest
import tensorflow as tf
from ale_py.vector_env import AtariVectorEnv

import environments
import nets
from conftest import ROOT
from evaluation import export, play_exported, policy
from simple_spaces import simple_spaces
from structs import StepOutput

pytestmark = pytest.mark.slow  # TensorFlow starts anew for every test.

STEPS, NUM_ENVS = 12, 3
# Reads SavedModels where neither this code nor Sonnet can be found, and steps each over a record.
LOADER = """
import sys
sys.path[:] = [p for p in sys.path if p not in ('', sys.argv[1])]
sys.modules['sonnet'] = None
import numpy as np
import tensorflow as tf

for name in ('nets', 'sonnet'):
  try:
    __import__(name)
    raise SystemExit(name + ' can be imported')
  except ImportError:
    pass
for folder in sys.argv[2:]:
  signatures = tf.saved_model.load(folder + '/export').signatures
  record = np.load(folder + '/record.npz')
  n = record['done'].shape[1]
  state = signatures['initial_state'](batch_size=tf.constant(n))['state']
  first = [int(s) for s in state.shape]
  outs = []
  for t in range(len(record['done'])):
    out = signatures['step'](state=state, **{k: tf.constant(record[k][t]) for k in record})
    state = out['state']
    outs.append({k: v.numpy() for k, v in out.items()})
  np.savez(folder + '/out.npz', **{k: np.stack([o[k] for o in outs]) for k in outs[0]})
"""

# What a program that plays Atari with an export does not need.
WITHOUT = 'sys.modules.update(dict.fromkeys(("gymnasium", "gym", "sonnet", "scipy", "cv2")))'


def make_run(folder, agent_name, level_name, scaling, value_normalisation=False):
  """Real steps of an untrained agent of which a checkpoint is written, in the graph.

  Returns:
    (settings, checkpoint path, dict of inputs [T, N, ...], logits [T, N, A], values [T, N]).
  """
  spec = environments.environment_spec(level_name, 0, 84, 84)
  from roles import settings as settings_lib

  settings = settings_lib.Settings(
    agent_name=agent_name,
    level_name=level_name,
    observation_scaling=scaling,
    return_normalisation='popart' if value_normalisation else 'none',
    num_action_repeats=spec.num_action_repeats,
    observation=spec.observation,
    action=spec.action,
  )
  keys = 'observation', 'last_action', 'last_reward', 'done'
  record, logits, baselines = {key: [] for key in keys}, [], []
  with tf.Graph().as_default():
    tf.compat.v1.set_random_seed(3)
    flow = environments.create_environment(level_name, NUM_ENVS, 1)
    try:
      agent = nets.build_agent(
        agent_name, spec, scaling=scaling, value_normalisation=value_normalisation
      )
      saver = tf.compat.v1.train.Saver(agent.variables)
      first, _ = flow.initial()
      acted = tf.compat.v1.placeholder(tf.int32, [NUM_ENVS])
      after, _ = flow.step(acted, tf.constant(0))
      fed = StepOutput(
        *(
          tf.compat.v1.placeholder(t.dtype, t.shape) if t is not None else None
          for t in first._replace(info=None)
        )
      )
      core = tf.nest.map_structure(
        lambda t: tf.compat.v1.placeholder(t.dtype, t.shape), agent.initial_state(NUM_ENVS)
      )
      output, next_core = agent((acted, fed), core)
      # Moments of running scaling that are not those of the start, and weights that tell apart.
      unlike = [v.assign(tf.cast(v * 0 + 7, v.dtype)) for v in agent.variables if 'count' in v.name]
      unlike += [
        v.assign(3 * tf.random.normal(v.shape)) for v in agent.variables if 'policy/w' in v.name
      ]
      if value_normalisation:
        unlike.append(agent.value_scale.scale.assign([-3.0, 20.0]))
      with tf.compat.v1.Session() as session:
        session.run(tf.compat.v1.global_variables_initializer())
        session.run(unlike)
        path = saver.save(session, str(folder / 'model.ckpt'), global_step=3)
        step, action = session.run(first), np.zeros([NUM_ENVS], np.int32)
        state = session.run(agent.initial_state(NUM_ENVS))
        for _ in range(STEPS):
          for key, value in zip(
            keys, (step.observation, action, step.reward, step.done), strict=True
          ):
            record[key].append(value)
          feeds = {acted: action, fed.reward: step.reward, fed.done: step.done}
          feeds[fed.observation] = step.observation
          feeds |= dict(zip(tf.nest.flatten(core), tf.nest.flatten(state), strict=True))
          out, state = session.run((output, next_core), feeds)
          logits.append(out.policy_logits)
          baselines.append(out.baseline)
          action = out.action
          step = session.run(after, {acted: action})
    finally:
      flow.close()
  stacked = {key: np.stack(values) for key, values in record.items()}
  return settings, path, stacked, np.stack(logits), np.stack(baselines)


def exported(folder, run):
  settings, path, *_ = run
  levels = [environments.made_by(settings.spec_of(level)) for level in settings.levels]
  export.export(str(folder / 'export'), path, settings, levels, dict(licence='Apache-2.0'))
  return folder / 'export'


def a_folder(path, text):
  path.mkdir()
  (path / 'policy.json').write_text(text)
  return str(path)


@pytest.mark.parametrize('kill_at', [1, 2, 3])
def test_a_kill_while_an_export_takes_the_place_of_an_earlier_one_loses_neither(
  kill_at, tmp_path, monkeypatch
):
  folder, new = a_folder(tmp_path / 'export', 'earlier'), a_folder(tmp_path / '.export-1', 'new')
  child = os.fork()
  if not child:  # On a file system that cannot exchange two names.
    export._exchange = lambda one, other: False
    renames, rename = [], os.rename

    def counted(*args):
      renames.append(args)
      if len(renames) == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)
      rename(*args)

    os.rename = counted
    export._replace(new, folder)
    os._exit(1)
  assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
  there = [p.read_text() for p in tmp_path.glob('*/policy.json')]
  assert sorted(there) == ['earlier', 'new']
  export._put_back(folder)
  assert (tmp_path / 'export' / 'policy.json').read_text() == ('new' if kill_at == 3 else 'earlier')
  assert os.listdir(tmp_path) == ['export']


def test_an_export_takes_the_place_of_an_earlier_one_at_once(tmp_path, monkeypatch):
  folder, new = a_folder(tmp_path / 'export', 'earlier'), a_folder(tmp_path / '.export-1', 'new')
  if not export._exchange(new, folder):
    pytest.skip('this file system cannot exchange two names')
  monkeypatch.setattr(os, 'rename', None)  # It is one call, which no kill can fall into.
  export._replace(new, folder)
  export._replace(new, folder)
  assert (tmp_path / 'export' / 'policy.json').read_text() == 'new'
  assert (tmp_path / '.export-1' / 'policy.json').read_text() == 'earlier'


def test_a_core_state_of_any_rank_goes_in_and_out_as_a_vector(graph):
  spec = simple_spaces((5,), 'float32', 3)
  made = policy.build_policy(
    types.SimpleNamespace(
      agent_name='own_agents:Plain',
      observation_scaling='unit',
      value_normalisation=False,
      **spec._asdict(),
    )
  )
  observation, state = np.float32(np.random.default_rng(1).normal(size=(2, 2, 5)))
  feed = dict(observation=observation, state=state, done=[False, True], last_action=[0, 0])
  feed = {made.inputs[name]: value for name, value in {**feed, 'last_reward': [0, 0]}.items()}
  with tf.compat.v1.Session() as session:
    session.run(tf.compat.v1.global_variables_initializer())
    after = session.run(made.outputs['state'], feed)
    first = session.run(made.initial_state, {made.batch_size: 4})
  np.testing.assert_allclose(after, 0.9 * state * [[1], [0]] + observation, rtol=1e-5)
  assert first.shape == (4, 5)


CASES = {
  'own_agents:OfVectors': ('CartPole-v1', 'running', True),  # As MLPAgent.
  'SimpleConvNetAgent': ('PongNoFrameskip-v4', 'centred', False),
  'SimpleConvNetLSTMAgent': ('impala/Catch-v0', 'unit', False),
  'ResNetPoolLSTMAgent': ('impala/Catch-v0', 'unit', False),
}


@pytest.fixture(scope='module')
def stepped(tmp_path_factory):
  """{agent: (arrays that its export gave elsewhere, logits, values)}."""
  folders = {agent_name: tmp_path_factory.mktemp('run') for agent_name in CASES}
  expected = {}
  for agent_name, folder in folders.items():
    run = make_run(folder, agent_name, *CASES[agent_name])
    exported(folder, run)
    _, _, record, *expected[agent_name] = run
    np.savez(folder / 'record.npz', **record)
  done = subprocess.run(
    [sys.executable, '-c', LOADER, ROOT, *map(str, folders.values())],
    cwd=tmp_path_factory.mktemp('empty'), capture_output=True, text=True, timeout=240,
  )  # fmt: skip
  assert done.returncode == 0, done.stderr
  return {name: (np.load(folders[name] / 'out.npz'), *expected[name]) for name in CASES}


@pytest.mark.parametrize(
  'agent_name, state_size',
  [
    ('own_agents:OfVectors', 0),
    ('SimpleConvNetAgent', 0),
    ('SimpleConvNetLSTMAgent', 512),
    ('ResNetPoolLSTMAgent', 512),
  ],
)
def test_it_plays_as_the_checkpoint_without_this_code(stepped, agent_name, state_size):
  out, logits, values = stepped[agent_name]
  np.testing.assert_allclose(out['logits'], logits, rtol=1e-4, atol=1e-4)
  np.testing.assert_allclose(out['value'], values, rtol=1e-4, atol=1e-4)
  np.testing.assert_array_equal(out['greedy_action'], logits.argmax(axis=-1))
  assert out['state'].shape == (STEPS, NUM_ENVS, state_size)
  assert np.ptp(logits) > 0.1  # They tell apart.


def test_the_games_of_the_program_beside_it_are_those_of_the_run():
  level = 'BreakoutNoFrameskip-v4'
  arguments = environments.atari_arguments(level, 4, 84, 84)
  game = play_exported.Atari(dict(atari=arguments), seed=5)
  same_step = gymnasium.vector.AutoresetMode.SAME_STEP
  env = AtariVectorEnv(num_envs=1, autoreset_mode=same_step, **arguments)
  np.testing.assert_array_equal(
    game.reset()['observation'], np.moveaxis(env.reset(seed=np.array([5]))[0], 1, -1)
  )
  actions, ends = np.random.default_rng(1).integers(0, 4, 2000), []
  for action in actions:
    observation, reward, done, over = game.step(int(action))
    seen, gained, terminated, truncated, info = env.step(np.array([action]))
    np.testing.assert_array_equal(observation['observation'], np.moveaxis(seen, 1, -1))
    assert (reward, done) == (float(gained[0]), bool(terminated[0] or truncated[0]))
    # Five lives: the game is over where the next one begins, with all of them.
    assert over == (done and int(info['lives'][0]) == 5)
    ends.append((done, over))
  assert sum(over for _, over in ends) >= 2 and sum(done for done, _ in ends) >= 10
  env.close()


def test_the_program_beside_it_plays_pong_without_gymnasium(tmp_path):
  run = make_run(tmp_path, 'SimpleConvNetAgent', 'PongNoFrameskip-v4', 'unit')
  folder = exported(tmp_path, run)
  policy = json.loads((folder / 'policy.json').read_text())
  assert policy['observation'][0]['shape'] == [84, 84, 4] and policy['num_actions'] == 6
  assert policy['atari']['frameskip'] == 4 and policy['licence'] == 'Apache-2.0'
  alone = f'import runpy, sys; {WITHOUT}; runpy.run_path(sys.argv[1], run_name="__main__")'
  played = subprocess.run(
    [sys.executable, '-c', alone, str(folder / 'play_exported.py')],
    cwd=tmp_path, capture_output=True, text=True, timeout=240,
  )  # fmt: skip
  assert played.returncode == 0, played.stderr
  word, value = played.stdout.split()
  assert word == 'return' and -21 <= float(value) <= 21
  assert sorted(p.name for p in tmp_path.iterdir() if p.is_dir()) == ['export']
