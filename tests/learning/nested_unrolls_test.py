"""Unrolls whose observations and actions have several parts, through learners."""

import numpy as np
import pytest
import tensorflow as tf

from learner_fixtures import (
  Learner,
  assert_same,
  learned,
  rows,
  small_settings,
  two_learners,
  update_together,
)
from structs import ACTION_MASK, ActionPart, ArraySpec

SPACES = dict(
  observation=(
    ArraySpec('image', (6, 5, 2), 'uint8'),
    ArraySpec('words', (4,), 'int32'),
    ArraySpec('sensors', (3,), 'float32'),
    ArraySpec(ACTION_MASK, (5,), 'bool'),
  ),
  action=(
    ActionPart('discrete', 2),
    ActionPart('continuous', 2, (-1.0, None), (1.0, None)),
    ActionPart('binary', 2),
    ActionPart('discrete', 3),
  ),
)


def settings(**changes):
  return small_settings(**{'agent_name': 'SimpleConvNetLSTMAgent', **SPACES, **changes})


def unrolls(number, seed=0):
  """`number` random unrolls, flat, as the queue has them."""
  rng = np.random.default_rng(seed)
  with tf.Graph().as_default():
    from roles import wiring
    from runtime.cluster import LOCAL

    queue = wiring.Graph(settings(), LOCAL).unroll_queue(0)
    structure = queue.specs
  flat = []
  for spec in tf.nest.flatten(structure):
    shape = [number, *spec.shape]
    if spec.dtype == tf.bool:
      flat.append(rng.random(shape) < 0.2)
    elif spec.dtype.is_floating:
      flat.append(np.float32(rng.normal(size=shape)))
    else:
      flat.append(rng.integers(0, 9, shape).astype(spec.dtype.as_numpy_dtype))
  unroll = tf.nest.pack_sequence_as(structure, flat)
  # Actions that exist and are allowed: the first choices; the second of both parts is forbidden.
  steps = unroll.agent_outputs.action.shape[:2]
  action = np.float32(rng.normal(size=(*steps, 6)))
  action[..., 0], action[..., 5] = 0, 2 * rng.integers(0, 2, steps)
  action[..., 3:5] = rng.integers(0, 2, (*steps, 2))
  mask = np.broadcast_to(np.array([True, False, True, False, True]), (*steps, 5))
  observation = (*unroll.env_outputs.observation[:-1], mask)
  unroll = unroll._replace(
    policy_version=np.zeros(number, np.int64),
    env_outputs=unroll.env_outputs._replace(observation=observation),
    agent_outputs=unroll.agent_outputs._replace(action=action),
  )
  return tf.nest.flatten(unroll)


def test_two_learners_and_three_parameter_servers_equal_one():
  """One update, with the observation statistics of an earlier one.

  Of two updates, a learner may begin the second before the other has added its observations.
  """
  ours = settings(observation_scaling='running')
  together = unrolls(8)
  first, later, _ = learned(ours, together, times=1)
  begin = {name: (later if 'statistics' in name else first)[name] for name in first}
  with Learner(ours).open() as one:
    one.assign(begin)
    one.put(rows(together, 2, 3))
    (report,) = one.update()
    after = one.values()
  assert np.isfinite(report['total_loss'])
  half = settings(observation_scaling='running', batch_size=2)
  with two_learners(half, num_ps=3) as learners:
    learners[0].assign(begin)
    for number, one in enumerate(learners):
      one.put(rows(together, 2 + number))
    update_together(learners, 1)
    values = learners[0].values()
  assert_same(values, after, atol=2e-5)
  scaled = [name for name in after if name.endswith('observation_statistics_2/sum')]
  assert scaled and (after[scaled[0]] != begin[scaled[0]]).any() and begin[scaled[0]].any()


def test_every_variable_learns_and_a_checkpoint_has_them_all():
  ours = settings()
  before, after, _ = learned(ours, unrolls(8), times=2)
  weights = [name for name in after if name.startswith('agent/') and name.count('/') < 5]
  assert any('log_std' in name for name in weights)
  still = [name for name in weights if np.array_equal(before[name], after[name])]
  assert not still
  with Learner(ours).open() as another:
    another.assign(after)
    assert_same(another.values(), after)


def test_masked_choices_do_not_move():
  """The gradient of a forbidden choice's logit is 0, so its bias stays what it was."""
  before, after, _ = learned(settings(entropy_cost=0.1), unrolls(8), times=2)
  moved = (after['agent/policy/b'] != before['agent/policy/b']).tolist()
  # Outputs: 2 logits, 2 means, 2 bits, 3 logits.
  assert moved == [False, False, True, True, True, True, True, False, True]


@pytest.mark.parametrize('reuse', [2])
def test_sample_reuse(reuse):
  ours = settings(sample_reuse=reuse)
  _, _, reports = learned(ours, unrolls(8), times=2 * reuse)
  assert len(reports) == 2 * reuse and all(np.isfinite(r['total_loss']) for r in reports)
