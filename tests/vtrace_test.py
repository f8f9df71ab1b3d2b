"""V-trace against the double sum of the paper (equation 1), written out in numpy."""

import collections
import itertools

import numpy as np
import pytest
import tensorflow as tf

import vtrace

Case = collections.namedtuple('Case', 'log_rhos discounts rewards values bootstrap_value')
NUM_ACTIONS = 5
TOLERANCE = 1e-5


def _case(shape=(6, 4), seed=0):
  rng = np.random.default_rng(seed)
  log_rhos = rng.normal(scale=1.5, size=shape)  # Weights from about 1/20 to 20: all clips matter.
  discounts = np.where(rng.random(shape) < 0.2, 0.0, 0.9)  # Some episodes end.
  rewards, values = rng.normal(size=(2, *shape))
  return Case(
    *(np.float32(x) for x in (log_rhos, discounts, rewards, values, rng.normal(size=shape[1:])))
  )


def _truth(case, clip_rho_threshold, clip_pg_rho_threshold, lambda_=1.0):
  """Equation (1) and the policy gradient of section 4.2, with nothing shared between the steps."""
  log_rhos, discounts, rewards, values, bootstrap_value = (np.float64(x) for x in case)
  num_steps = len(rewards)
  rhos = np.exp(log_rhos)
  clipped_rhos = np.minimum(rhos, np.inf if clip_rho_threshold is None else clip_rho_threshold)
  clipped_pg = np.minimum(rhos, np.inf if clip_pg_rho_threshold is None else clip_pg_rho_threshold)
  cs = lambda_ * np.minimum(rhos, 1.0)
  all_values = np.concatenate([values, bootstrap_value[None]])  # V(x_0) to V(x_T).
  vs = all_values.copy()  # v_T is the bootstrap value.
  for s in range(num_steps):
    for t in range(s, num_steps):
      trace = np.prod(discounts[s:t] * cs[s:t], axis=0)
      vs[s] += (
        trace * clipped_rhos[t] * (rewards[t] + discounts[t] * all_values[t + 1] - all_values[t])
      )
  pg_advantages = clipped_pg * (rewards + discounts * vs[1:] - values)
  return vtrace.VTraceReturns(vs[:-1], pg_advantages)


def _log_softmax(logits):
  shifted = logits - logits.max(axis=-1, keepdims=True)
  return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def _log_probs(logits, actions):
  return np.take_along_axis(_log_softmax(np.float64(logits)), actions[..., None], -1)[..., 0]


def _run(build):
  """What the tensors that `build` makes are, in a graph of their own."""
  with tf.Graph().as_default(), tf.compat.v1.Session() as session:
    return session.run(build())


def _assert_close(actual, expected):
  for field, got, want in zip(expected._fields, actual, expected, strict=True):
    np.testing.assert_allclose(got, want, rtol=TOLERANCE, atol=TOLERANCE, err_msg=field)


def _logits_case(shape, seed=1):
  rng = np.random.default_rng(seed)
  behaviour, target = np.float32(rng.normal(size=(2, *shape, NUM_ACTIONS)))
  actions = rng.integers(0, NUM_ACTIONS, shape, dtype=np.int32)
  log_rhos = _log_probs(target, actions) - _log_probs(behaviour, actions)
  return behaviour, target, actions, _case(shape, seed)._replace(log_rhos=log_rhos)


CLIPS = (None, 0.5, 1.0, 3.7)


@pytest.mark.parametrize('clip, pg_clip', list(itertools.product(CLIPS, CLIPS)))
def test_importance_weights_equal_the_double_sum(clip, pg_clip):
  case = _case()
  returns = _run(
    lambda: vtrace.from_importance_weights(
      *case, clip_rho_threshold=clip, clip_pg_rho_threshold=pg_clip
    )
  )
  _assert_close(returns, _truth(case, clip, pg_clip))


@pytest.mark.parametrize('lambda_', [0.0, 0.3, 0.95, 1.0])
def test_lambda_multiplies_the_traces(lambda_):
  case = _case()
  returns = _run(lambda: vtrace.from_importance_weights(*case, lambda_=lambda_))
  _assert_close(returns, _truth(case, 1.0, 1.0, lambda_))


def test_lambda_zero_looks_one_step_ahead():
  case = _case()._replace(log_rhos=np.zeros([6, 4], np.float32))
  returns = _run(lambda: vtrace.from_importance_weights(*case, lambda_=0.0))
  next_values = np.concatenate([case.values[1:], case.bootstrap_value[None]])
  np.testing.assert_allclose(returns.vs, case.rewards + case.discounts * next_values, atol=1e-5)


@pytest.mark.parametrize('num_steps', [1, 2, 3, 20, 100])
def test_any_length(num_steps):
  case = _case((num_steps, 3))
  returns = _run(lambda: vtrace.from_importance_weights(*case))
  _assert_close(returns, _truth(case, 1.0, 1.0))


def test_on_policy_without_ends_is_the_n_step_return():
  case = _case()._replace(
    log_rhos=np.zeros([6, 4], np.float32), discounts=np.full([6, 4], 0.9, np.float32)
  )
  returns = _run(lambda: vtrace.from_importance_weights(*case))
  expected = case.bootstrap_value
  for t in reversed(range(6)):
    expected = case.rewards[t] + 0.9 * expected
    np.testing.assert_allclose(returns.vs[t], expected, atol=1e-5)


def test_weights_of_zero_cut_the_trace_and_stay_finite():
  case = _case()
  case.log_rhos[2] = -np.inf  # The learner's policy would never have done this: rho and c are 0.
  case.log_rhos[4] = -200.0  # exp() underflows to 0.
  returns = _run(lambda: vtrace.from_importance_weights(*case))
  assert np.isfinite(returns.vs).all() and np.isfinite(returns.pg_advantages).all()
  _assert_close(returns, _truth(case, 1.0, 1.0))
  np.testing.assert_array_equal(returns.vs[2], case.values[2])


def test_further_dimensions():
  case = _case((6, 4, 2, 3))
  returns = _run(lambda: vtrace.from_importance_weights(*case, clip_rho_threshold=2.0))
  assert returns.vs.shape == (6, 4, 2, 3)
  _assert_close(returns, _truth(case, 2.0, 1.0))


@pytest.mark.parametrize('clip, pg_clip', [(None, None), (1.0, 1.0), (3.7, 2.2)])
@pytest.mark.parametrize('shape', [(7, 3), (4, 3, 2)])
def test_logits_equal_the_double_sum(shape, clip, pg_clip):
  behaviour, target, actions, case = _logits_case(shape)
  returns = _run(
    lambda: vtrace.from_logits(
      behaviour,
      target,
      actions,
      *case[1:],
      clip_rho_threshold=clip,
      clip_pg_rho_threshold=pg_clip,
      lambda_=0.9,
    )
  )
  _assert_close(
    returns,
    vtrace.VTraceFromLogitsReturns(
      *_truth(case, clip, pg_clip, 0.9),
      case.log_rhos,
      _log_probs(behaviour, actions),
      _log_probs(target, actions),
    ),
  )


@pytest.mark.parametrize('shape', [(7, 3), (7, 3, 2)])
def test_log_probs(shape):
  behaviour, _, actions, _ = _logits_case(shape)
  log_probs = _run(lambda: vtrace.log_probs_from_logits_and_actions(behaviour, actions))
  np.testing.assert_allclose(log_probs, _log_probs(behaviour, actions), rtol=1e-5)


def test_log_probs_of_extreme_logits_stay_finite():
  logits = np.float32([[[0, 1e4, -1e4]]])
  log_probs = [
    _run(lambda a=action: vtrace.log_probs_from_logits_and_actions(logits, np.int32([[a]])))
    for action in range(3)
  ]
  np.testing.assert_allclose(np.ravel(log_probs), [-1e4, 0, -2e4])


@pytest.mark.parametrize('static_shape', [(6, None), (None, 4), (None, None), None])
def test_unknown_static_shapes(static_shape):
  case = _case()
  bootstrap_shape = None if static_shape is None else static_shape[1:]
  with tf.Graph().as_default(), tf.compat.v1.Session() as session:
    shapes = [static_shape] * 4 + [bootstrap_shape]
    placeholders = [tf.compat.v1.placeholder(tf.float32, shape) for shape in shapes]
    returns = vtrace.from_importance_weights(*placeholders)
    _assert_close(
      session.run(returns, dict(zip(placeholders, case, strict=True))), _truth(case, 1.0, 1.0)
    )


def test_unknown_static_shapes_of_logits():
  behaviour, target, actions, case = _logits_case((7, 3))
  arrays = [behaviour, target, actions, *case[1:]]
  with tf.Graph().as_default(), tf.compat.v1.Session() as session:
    placeholders = [tf.compat.v1.placeholder(array.dtype, [None] * array.ndim) for array in arrays]
    returns = vtrace.from_logits(*placeholders)
    returns = session.run(returns, dict(zip(placeholders, arrays, strict=True)))
  _assert_close(returns[:2], _truth(case, 1.0, 1.0))


def test_static_shapes_are_kept():
  with tf.Graph().as_default():
    returns = vtrace.from_importance_weights(*_case())
    assert [t.shape.as_list() for t in returns] == [[6, 4], [6, 4]]


@pytest.mark.parametrize(
  'field, shape, rank',
  [
    ('log_rhos', [6], 2),
    ('discounts', [6], 2),
    ('rewards', [6, 4, 1], 2),
    ('values', [6, 4, 1], 2),
    ('bootstrap_value', [6, 4], 1),
    ('bootstrap_value', [], 1),
  ],
)
def test_a_wrong_rank_is_refused_while_the_graph_is_built(field, shape, rank):
  with tf.Graph().as_default():
    case = _case()._replace(**{field: tf.compat.v1.placeholder(tf.float32, shape)})
    with pytest.raises(ValueError, match=f'{field} must have rank {rank}'):
      vtrace.from_importance_weights(*case)


def test_the_bootstrap_value_of_higher_ranks_is_checked_too():
  with tf.Graph().as_default():
    sequence = tf.compat.v1.placeholder(tf.float32, [None, None, 1])
    bootstrap_value = tf.compat.v1.placeholder(tf.float32, [None])
    with pytest.raises(ValueError, match='must have rank 2'):
      vtrace.from_importance_weights(sequence, sequence, sequence, sequence, bootstrap_value)


@pytest.mark.parametrize(
  'wrong, rank',
  [
    ({'behaviour_policy_logits': [7, 3]}, 3),
    ({'target_policy_logits': [7, 3]}, 3),
    ({'actions': [7, 3, 1]}, 2),
  ],
)
def test_a_wrong_rank_of_logits_or_actions_is_refused(wrong, rank):
  ((name, shape),) = wrong.items()
  behaviour, target, actions, case = _logits_case((7, 3))
  inputs = {
    'behaviour_policy_logits': behaviour,
    'target_policy_logits': target,
    'actions': actions,
  }
  with tf.Graph().as_default():
    inputs[name] = tf.compat.v1.placeholder(inputs[name].dtype, shape)
    with pytest.raises(ValueError, match=f'{name} must have rank {rank}'):
      vtrace.from_logits(*inputs.values(), *case[1:])


@pytest.mark.parametrize('name', ['clip_rho_threshold', 'clip_pg_rho_threshold', 'lambda_'])
def test_thresholds_are_scalars(name):
  with tf.Graph().as_default(), pytest.raises(ValueError, match=f'{name} must have rank 0'):
    vtrace.from_importance_weights(*_case(), **{name: [1.0]})


def test_nothing_backpropagates_through_the_targets():
  with tf.Graph().as_default():
    inputs = [tf.constant(x) for x in _case()]
    returns = vtrace.from_importance_weights(*inputs)
    for target in returns:
      assert tf.gradients(target, inputs) == [None] * len(inputs)


def test_gradients_flow_through_log_probabilities_only():
  behaviour, target, actions, case = _logits_case((7, 3))
  with tf.Graph().as_default():
    logits = tf.constant(target)
    returns = vtrace.from_logits(behaviour, logits, actions, *case[1:])
    assert tf.gradients(returns.vs, logits) == [None]
    assert tf.gradients(returns.pg_advantages, logits) == [None]
    assert tf.gradients(returns.target_action_log_probs, logits)[0] is not None


def test_numpy_float64_and_int64_are_accepted():
  behaviour, target, actions, case = _logits_case((7, 3))
  returns = _run(
    lambda: vtrace.from_logits(
      np.float64(behaviour),
      np.float64(target),
      np.int64(actions),
      *(np.float64(x) for x in case[1:]),
    )
  )
  assert returns.vs.dtype == np.float32
  _assert_close(vtrace.VTraceReturns(*returns[:2]), _truth(case, 1.0, 1.0))
