"""Golden numbers: three updates of the original release's formulas, written out in numpy.

`tests/data/golden.npz` has three batches, the first weights, and what the formulas below make of
them: losses, every gradient, and the weights after each update. The formulas are those of IMPALA
(Espeholt et al. 2018, arXiv 1802.01561): V-trace (section 4.1), losses that are sums over time and
batch (section 4.2), the clip of the global norm, a learning rate that falls linearly, and RMSProp
of TensorFlow 1, with its epsilon inside the root. The settings are those of Table G.1, but for the
clip: at 90, two of the three gradients are clipped.

  PYTHONPATH=.:tests python tests/learning/golden_test.py    # writes the file again
"""

import os

import numpy as np
import tensorflow as tf

import vtrace
from conftest import ROOT
from learner_fixtures import Learner, random_unrolls, small_settings
from learning import learner, losses
from learning.sample_reuse import SampleReuse

FILE = os.path.join(ROOT, 'tests/data/golden.npz')
UPDATES, BATCH, STEPS, ACTIONS = 3, 4, 4, 5
DISCOUNT, BASELINE_COST, ENTROPY_COST = 0.99, 0.5, 0.01
RATE, DECAY, EPSILON, CLIP, FRAMES = 6e-4, 0.99, 0.01, 90.0, 1000
FRAMES_PER_UPDATE = BATCH * STEPS * 2
CLOSE = dict(rtol=1e-5, atol=1e-5)
FIELDS = ('level_id', 'policy_version', 'reward', 'episode_return', 'episode_step', 'game_over',
          'done', 'observation', 'action', 'logits', 'baseline')  # fmt: skip
SHAPES = {
  'torso_0/w': (3, 64), 'torso_0/b': (64,), 'torso_1/w': (64, 64), 'torso_1/b': (64,),
  'policy/w': (70, ACTIONS), 'policy/b': (ACTIONS,), 'baseline/w': (70, 1), 'baseline/b': (1,),
}  # fmt: skip
LOSSES = ('total', 'policy', 'baseline', 'entropy')


def settings_of_the_original():
  """`Settings` with the constants above; the agent is an MLP, whose gradient stands here."""
  return small_settings(
    agent_name='MLPAgent', batch_size=BATCH, unroll_length=STEPS, discounting=DISCOUNT,
    baseline_cost=BASELINE_COST, entropy_cost=ENTROPY_COST, learning_rate=RATE, decay=DECAY,
    momentum=0.0, epsilon=EPSILON, gradient_clipping=CLIP, total_environment_frames=FRAMES,
  )  # fmt: skip


# The formulas, in float64.


def forward(weights, observation, last_action, reward):
  """Features, and hidden layers, of [N] entries; logits and values."""
  first = np.tanh(observation @ weights['torso_0/w'] + weights['torso_0/b'])
  second = np.tanh(first @ weights['torso_1/w'] + weights['torso_1/b'])
  last = np.eye(ACTIONS)[last_action]
  features = np.concatenate([second, np.clip(reward, -1, 1)[:, None], last], axis=1)
  logits = features @ weights['policy/w'] + weights['policy/b']
  values = (features @ weights['baseline/w'] + weights['baseline/b'])[:, 0]
  return first, second, features, logits, values


def log_softmax(logits):
  shifted = logits - logits.max(axis=-1, keepdims=True)
  return shifted - np.log(np.sum(np.exp(shifted), axis=-1, keepdims=True))


def v_trace(rhos, discounts, rewards, values, bootstrap_value):
  """vs and advantages of [T, B]: remark 1 of section 4.1, and section 4.2; all clips are 1."""
  clipped = np.minimum(1.0, rhos)
  next_values = np.append(values[1:], bootstrap_value[None], axis=0)
  vs, correction = np.empty_like(values), np.zeros_like(bootstrap_value)
  for t in reversed(range(len(values))):
    delta = clipped[t] * (rewards[t] + discounts[t] * next_values[t] - values[t])
    correction = delta + discounts[t] * clipped[t] * correction
    vs[t] = values[t] + correction
  next_vs = np.append(vs[1:], bootstrap_value[None], axis=0)
  return vs, clipped * (rewards + discounts * next_vs - values)


def losses_and_gradients(weights, batch):
  """{loss: value} and {weight: gradient} of a batch of [B, T+1, ...]."""
  entries = (STEPS + 1) * BATCH
  flat = {name: np.swapaxes(batch[name], 0, 1).reshape(entries, *batch[name].shape[2:])
          for name in FIELDS[2:]}  # fmt: skip
  first, second, features, logits, values = forward(
    weights, flat['observation'], flat['action'], flat['reward']
  )

  def over_time(array):
    return array.reshape(STEPS + 1, BATCH, *array.shape[1:])

  log_pi, values = over_time(log_softmax(logits)), over_time(values)
  action = over_time(flat['action'])[1:]
  log_mu = over_time(log_softmax(flat['logits']))[1:]
  chosen = np.eye(ACTIONS)[action]
  taken, log_pi = np.sum(chosen * log_pi[:-1], -1), log_pi[:-1]
  rhos = np.exp(taken - np.sum(chosen * log_mu, -1))
  discounts = DISCOUNT * ~over_time(flat['done'])[1:]
  rewards = np.clip(over_time(flat['reward'])[1:], -1, 1)
  vs, advantages = v_trace(rhos, discounts, rewards, values[:-1], values[-1])
  pi = np.exp(log_pi)
  policy = -np.sum(taken * advantages)
  baseline = 0.5 * np.sum((vs - values[:-1]) ** 2)
  entropy = np.sum(pi * log_pi)
  total = policy + BASELINE_COST * baseline + ENTROPY_COST * entropy

  for_logits = np.zeros([STEPS + 1, BATCH, ACTIONS])
  for_logits[:-1] = (pi - chosen) * advantages[..., None]
  for_logits[:-1] += ENTROPY_COST * pi * (log_pi - np.sum(pi * log_pi, -1, keepdims=True))
  for_values = np.zeros([STEPS + 1, BATCH, 1])
  for_values[:-1, :, 0] = BASELINE_COST * (values[:-1] - vs)
  for_logits, for_values = for_logits.reshape(entries, -1), for_values.reshape(entries, -1)
  for_features = for_logits @ weights['policy/w'].T + for_values @ weights['baseline/w'].T
  for_second = for_features[:, :64] * (1 - second**2)
  for_first = (for_second @ weights['torso_1/w'].T) * (1 - first**2)
  gradients = {}
  for name, inputs, outputs in (
    ('torso_0', flat['observation'], for_first),
    ('torso_1', first, for_second),
    ('policy', features, for_logits),
    ('baseline', features, for_values),
  ):
    gradients[f'{name}/w'], gradients[f'{name}/b'] = inputs.T @ outputs, outputs.sum(axis=0)
  return dict(zip(LOSSES, (total, policy, baseline, entropy), strict=True)), gradients


def rmsprop(weights, mean_squares, gradients, updates):
  """The weights after an update; changes `mean_squares`, which begin at 1."""
  norm = np.sqrt(sum(np.sum(gradient**2) for gradient in gradients.values()))
  rate = RATE * (1 - updates * FRAMES_PER_UPDATE / FRAMES)
  after = {}
  for name, gradient in gradients.items():
    clipped = gradient * CLIP / max(norm, CLIP)
    mean_squares[name] = DECAY * mean_squares[name] + (1 - DECAY) * clipped**2
    after[name] = weights[name] - rate * clipped / np.sqrt(mean_squares[name] + EPSILON)
  return after


def computed(arrays):
  """{key: array} of what the formulas make of the inputs in a file."""
  weights = {name: np.float64(arrays[f'weights_0/{name}']) for name in SHAPES}
  mean_squares = {name: np.ones(shape) for name, shape in SHAPES.items()}
  found = {}
  for update in range(UPDATES):
    batch = {name: arrays[name][update * BATCH : (update + 1) * BATCH] for name in FIELDS}
    values, gradients = losses_and_gradients(weights, batch)
    weights = rmsprop(weights, mean_squares, gradients, update)
    found |= {f'losses_{update}/{name}': value for name, value in values.items()}
    found |= {f'gradients_{update}/{name}': gradient for name, gradient in gradients.items()}
    found |= {f'weights_{update + 1}/{name}': weight for name, weight in weights.items()}
  return found


def write():
  """Writes the file: random inputs, of which some episodes end and one gradient is clipped."""
  unrolls = dict(
    zip(FIELDS, random_unrolls(settings_of_the_original(), UPDATES * BATCH), strict=True)
  )
  unrolls['episode_step'] = np.maximum(1, unrolls['episode_step'])
  rng = np.random.default_rng(7)
  weights = {
    f'weights_0/{name}': np.float32(rng.normal(scale=0.4, size=shape))
    for name, shape in SHAPES.items()
  }
  inputs = {**unrolls, **weights}
  os.makedirs(os.path.dirname(FILE), exist_ok=True)
  outputs = {name: np.float32(value) for name, value in computed(inputs).items()}
  np.savez_compressed(FILE, **inputs, **outputs)


# The program.


def golden():
  with np.load(FILE) as file:
    return dict(file)


def names_of(one):
  """{name in the file: name of the program's variable}."""
  weights = sorted(
    name for name in one.variables if name.startswith('agent/') and name[-2:] in ('/w', '/b')
  )
  torso = sorted({name.rpartition('/')[0] for name in weights if 'torso' in name}, key=len)
  parts = dict(zip(('torso_0', 'torso_1'), torso, strict=True))
  parts |= {'policy': 'agent/policy', 'baseline': 'agent/baseline'}
  return {name: f'{parts[name[:-2]]}{name[-2:]}' for name in SHAPES}


def test_the_file_has_what_the_formulas_make_of_its_inputs():
  arrays = golden()
  found = computed(arrays)
  assert set(found) | set(FIELDS) | {f'weights_0/{name}' for name in SHAPES} == set(arrays)
  for name, value in found.items():
    np.testing.assert_allclose(value, arrays[name], rtol=1e-6, atol=1e-7, err_msg=name)
  norms = [
    np.sqrt(sum(np.sum(arrays[f'gradients_{update}/{name}'] ** 2) for name in SHAPES))
    for update in range(UPDATES)
  ]
  assert max(norms) > CLIP > min(norms)


def test_losses_gradients_and_weights_are_golden():
  arrays, settings = golden(), settings_of_the_original()
  batch = [arrays[name] for name in FIELDS]
  with Learner(settings) as one:
    names = names_of(one)
    with one.tf_graph.as_default():
      agent, copy_weights = one.graph.local_agent()
      copy = copy_weights()
      fed = [tf.compat.v1.placeholder(x.dtype, [BATCH, *x.shape[1:]]) for x in batch]
      found = learner.build_gradients(
        agent, tf.nest.pack_sequence_as(one.side.loop.batch, fed), settings,
        losses.Factors(ENTROPY_COST), ['/cpu:0'], SampleReuse(1),
      )  # fmt: skip
      order = [variable.name.partition(':')[0] for variable in one.graph.agent.trainable_variables]
    one.open()
    one.assign({names[name]: arrays[f'weights_0/{name}'] for name in SHAPES})
    for update in range(UPDATES):
      rows = [x[update * BATCH : (update + 1) * BATCH] for x in batch]
      one.session.run(copy)
      values, gradients = one.session.run(found, dict(zip(fed, rows, strict=True)))
      for name in LOSSES:
        expected = arrays[f'losses_{update}/{name}']
        np.testing.assert_allclose(getattr(values, name), expected, err_msg=name, **CLOSE)
      by_name = dict(zip(order, gradients, strict=True))
      for name, own in names.items():
        expected = arrays[f'gradients_{update}/{name}']
        np.testing.assert_allclose(by_name[own], expected, err_msg=name, **CLOSE)
      one.put(rows)
      one.update()
      after = one.values()
      for name, own in names.items():
        expected = arrays[f'weights_{update + 1}/{name}']
        np.testing.assert_allclose(after[own], expected, err_msg=name, **CLOSE)


def test_v_trace_is_golden_with_the_signature_of_the_original(graph):
  rng = np.random.default_rng(3)
  logits = np.float32(rng.normal(size=(2, STEPS, BATCH, ACTIONS)))
  actions = rng.integers(0, ACTIONS, (STEPS, BATCH), np.int32)
  rewards, values = np.float32(rng.normal(size=(2, STEPS, BATCH)))
  discounts = np.float32(DISCOUNT * (rng.random((STEPS, BATCH)) > 0.2))
  bootstrap = np.float32(rng.normal(size=BATCH))
  found = vtrace.from_logits(
    behaviour_policy_logits=logits[0], target_policy_logits=logits[1], actions=actions,
    discounts=discounts, rewards=rewards, values=values, bootstrap_value=bootstrap,
    clip_rho_threshold=1.0, clip_pg_rho_threshold=1.0,
  )  # fmt: skip
  taken = np.eye(ACTIONS)[actions]
  log_mu, log_pi = (np.sum(taken * log_softmax(np.float64(x)), -1) for x in logits)
  expected = v_trace(np.exp(log_pi - log_mu), discounts, rewards, values, bootstrap)
  with tf.compat.v1.Session() as session:
    for got, want in zip(session.run(found)[:2], expected, strict=True):
      np.testing.assert_allclose(got, want, **CLOSE)


if __name__ == '__main__':
  write()
