"""Checks an agent of the user's against the interface in docs/environments_and_agents.md.

Shapes: N environments per step; [T, N] are unrolls of T steps; P parameters of the policy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from common.own_code import BrokenInterface
from learning.distributions import Distribution
from structs import (
  ACTION_MASK,
  AgentOutput,
  ArraySpec,
  CoreState,
  Spaces,
  StepOutput,
  StepOutputInfo,
  action_dtype,
  action_shape,
  as_observation,
)

_METHODS = ('initial_state', '__call__', 'unroll')
_T, _N = 2, 2
_TOLERANCE = 1e-3  # Relative and absolute, of float32 on different paths.


def check_class(agent: Any) -> None:
  """Checks the attributes of an agent, and sets those that it may leave out.

  Raises:
    BrokenInterface: one is missing.
  """
  for name in _METHODS:
    if not callable(getattr(agent, name, None)):
      raise BrokenInterface(f'has no method {name}')
  if not isinstance(getattr(agent, 'distribution', None), Distribution):
    raise BrokenInterface(
      'has no attribute distribution; learning.distributions.distribution_of(spaces.action) makes '
      'one'
    )
  if not hasattr(type(agent), 'trainable_variables'):
    raise BrokenInterface('has no trainable_variables; it should be a sonnet.Module or tf.Module')
  for name in ('scalings', 'value_scale'):
    if not hasattr(agent, name):
      setattr(agent, name, None)


def check_options(agent: Any, scaling: str, value_normalisation: int) -> None:
  """Checks that an agent, called once, does what its constructor was asked for.

  Raises:
    BrokenInterface: it takes no notice of running moments or of PopArt.
  """
  if scaling in ('running', 'copied') and agent.scalings is None:
    raise BrokenInterface(
      'has no scalings, so --observation_scaling=running has no effect: leave it out, or derive '
      'the class from nets.Agent'
    )
  if value_normalisation and not agent.value_scale:
    raise BrokenInterface(
      'has no value_scale, so --return_normalisation=popart has no effect: leave it out, or derive '
      'the class from nets.Agent'
    )


def check_step(
  agent: Any, spaces: Spaces, method: str, before: CoreState, result: Any, leading: tuple[Any, ...]
) -> None:
  """Checks what a call of an agent returned, as far as shapes and dtypes are known.

  Args:
    agent: the agent.
    spaces: its observations and actions.
    method: name of the method that was called.
    before: the core state that it was given.
    result: what it returned.
    leading: leading axes of the outputs, (N,) or (T, N); None stands for an unknown size.

  Raises:
    BrokenInterface: something is not as in the interface.
  """
  if not (isinstance(result, tuple) and len(result) == 2 and isinstance(result[0], AgentOutput)):
    raise BrokenInterface(f'returns no (AgentOutput, core state) from {method}')
  output, after = result
  expected = dict(
    action=(action_dtype(spaces.action), action_shape(spaces.action)),
    policy_logits=('float32', (agent.distribution.num_parameters,)),
    baseline=('float32', _levels_of(agent)),
  )
  for name, (dtype, shape) in expected.items():
    _check_tensor(f'{name} of {method}', getattr(output, name), dtype, (*leading, *shape))
  _check_state(method, before, after)


def _levels_of(agent: Any) -> tuple[int, ...]:
  """Returns the last axis of a baseline: none, or one of n levels with PopArt for each."""
  levels = getattr(agent.value_scale, 'num_levels', 1)
  return (levels,) if levels > 1 else ()


def _check_tensor(name: str, value: Any, dtype: str, shape: tuple[Any, ...]) -> None:
  wanted = f'{dtype} of {_text(shape)}'
  if not isinstance(value, tf.Tensor):
    raise BrokenInterface(
      f'gives a {type(value).__name__} as {name}, and a tensor, {wanted}, is due'
    )
  if value.dtype != dtype or not value.shape.is_compatible_with(shape):
    raise BrokenInterface(f'gives {_described(value)} as {name}, and {wanted} is due')


def _check_state(method: str, before: CoreState, after: CoreState) -> None:
  wanted, given = (tf.nest.map_structure(_described, state) for state in (before, after))
  try:
    tf.nest.assert_same_structure(before, after)
    same = all(
      new.dtype == old.dtype and new.shape[1:].is_compatible_with(old.shape[1:])
      for new, old in zip(tf.nest.flatten(after), tf.nest.flatten(before), strict=True)
    )
  except (ValueError, TypeError):
    same = False
  if not same:
    raise BrokenInterface(
      f'returns the core state {given} from {method}, and {wanted}, as from initial_state, is due'
    )


def check_first_state(state: CoreState) -> None:
  """Checks a core state from `initial_state`.

  Raises:
    BrokenInterface: it is no nest of float32 [N, ...] whose other sizes are known.
  """
  for tensor in tf.nest.flatten(state):
    is_tensor = isinstance(tensor, tf.Tensor)
    if not (
      is_tensor
      and tensor.dtype == tf.float32
      and tensor.shape.rank
      and tensor.shape[1:].is_fully_defined()
    ):
      raise BrokenInterface(
        f'has {_described(tensor)} in initial_state, and float32 of [N, ...] is due'
      )


def _described(value: Any) -> str:
  if not isinstance(value, tf.Tensor):
    return f'a {type(value).__name__}'
  shape = None if value.shape.rank is None else tuple(value.shape)
  return f'{value.dtype.name} of {"unknown shape" if shape is None else _text(shape)}'


def _text(shape: Sequence[Any]) -> str:
  return '[' + ', '.join('N' if size is None else str(size) for size in shape) + ']'


def zero_step(spaces: Spaces, num_envs: int) -> tuple[tf.Tensor, StepOutput]:
  """Returns an action and a StepOutput of [N, ...], all zero; the information is left out."""
  arrays = [tf.zeros([num_envs, *array.shape], array.dtype) for array in spaces.observation]
  step = StepOutput(
    reward=tf.zeros([num_envs]),
    info=StepOutputInfo(None, None, None),
    done=tf.zeros([num_envs], tf.bool),
    observation=as_observation(arrays),
  )
  return tf.zeros([num_envs, *action_shape(spaces.action)], action_dtype(spaces.action)), step


def check_agent(agent: Any, spaces: Spaces) -> None:
  """Checks an agent, called once before, by unrolls over random observations.

  Its variables are in the default graph; a session on the processor gives them their first values.

  Raises:
    BrokenInterface: something is not as in the interface.
  """
  known = [v.ref() for v in _variables(agent, 'variables')]
  steps = _Steps(agent, spaces)
  if [v.ref() for v in _variables(agent, 'variables')] != known:
    raise BrokenInterface(
      'creates variables with every call: create them in __init__ or in the first call'
    )
  _check_variables(agent, steps.unrolled[0])
  steps.check()


def _variables(agent: Any, kind: str) -> Sequence[tf.Variable]:
  try:
    return getattr(agent, kind)
  except ValueError:  # Sonnet raises it if there are none.
    return ()


def _check_variables(agent: Any, output: AgentOutput) -> None:
  variables = _variables(agent, 'trainable_variables')
  if not variables:
    raise BrokenInterface('has no trainable variables')
  for variable in variables:
    if variable.dtype != tf.float32:
      raise BrokenInterface(f'has a trained variable {variable.name} that is no float32')
  loss = tf.reduce_sum(output.policy_logits) + tf.reduce_sum(output.baseline)
  for variable, gradient in zip(variables, tf.gradients(loss, variables), strict=True):
    if gradient is None:
      raise BrokenInterface(
        f'has a variable {variable.name} on which neither policy nor baseline depend: it cannot be '
        'trained'
      )


class _Steps:
  """The same two random steps in several ways; in the second, the episode of environment 0 ends."""

  def __init__(self, agent: Any, spaces: Spaces):
    actions, env_outputs = _random_unroll(agent, spaces)
    before = agent.initial_state(_N)
    check_first_state(before)

    def step(t, state):
      now = tf.nest.map_structure(lambda x: x[t], (actions, env_outputs))
      result = agent(now, state)
      check_step(agent, spaces, '__call__', state, result, (_N,))
      return result

    first, between = step(0, before)
    # The second step after the first, the same once more, and from a new core state.
    self._second, self._again, self._fresh = step(1, between), step(1, between), step(1, before)
    outputs = tf.nest.map_structure(lambda *x: tf.stack(x), first, self._second[0])
    self._stepped = outputs, self._second[1]
    self.unrolled = agent.unroll(actions, env_outputs, before)
    check_step(agent, spaces, 'unroll', before, self.unrolled, (_T, _N))
    self._has_state = bool(tf.nest.flatten(before))
    _check_any_size(agent, spaces)

  def check(self) -> None:
    """Compares the values; what differs from call to call, such as noise, is not compared."""
    fetches = [self._stepped, self.unrolled, self._second, self._again, self._fresh]
    with tf.compat.v1.Session(config=_one_thread()) as session:
      session.run(tf.compat.v1.global_variables_initializer())
      session.run(tf.compat.v1.local_variables_initializer())
      results = session.run([_without_action(result) for result in fetches])
    stepped, unrolled, second, again, fresh = results
    if not _are_equal(second, again):
      return
    ended, going_on = ([_of(n, result) for result in (second, fresh)] for n in range(_N))
    if self._has_state and _are_equal(*going_on):
      raise BrokenInterface('forgets: the core state that it is given has no effect')
    if not _are_equal(*ended):
      raise BrokenInterface(
        'does not begin anew where `done`: the core state has to be reset there'
      )
    if not _are_equal(stepped, unrolled):
      raise BrokenInterface(
        'gives other policies, baselines or core states from unroll than from single steps'
      )


def _of(environment: int, result: Any) -> Any:
  return [array[environment] for array in tf.nest.flatten(result)]


def _without_action(result: tuple[AgentOutput, CoreState]) -> Any:
  output, state = result
  return output.policy_logits, output.baseline, tf.nest.flatten(state)


def _are_equal(one: Any, other: Any) -> bool:
  pairs = zip(tf.nest.flatten(one), tf.nest.flatten(other), strict=True)
  return all(np.allclose(a, b, _TOLERANCE, _TOLERANCE) for a, b in pairs)


def _check_any_size(agent: Any, spaces: Spaces) -> None:
  """Checks a step of an unknown number of environments, as exported policies have it."""
  action, step = tf.nest.map_structure(
    lambda t: t if t is None else tf.compat.v1.placeholder(t.dtype, [None, *t.shape[1:]]),
    zero_step(spaces, 1),
  )
  state = agent.initial_state(tf.compat.v1.placeholder(tf.int32, []))
  check_first_state(state)
  result = agent((action, step), state)
  check_step(agent, spaces, '__call__', state, result, (None,))


def _random_unroll(agent: Any, spaces: Spaces) -> tuple[tf.Tensor, StepOutput]:
  """Returns actions and a StepOutput of [T, N, ...]; see `_Steps`."""
  done = np.zeros([_T, _N], bool)
  done[1, 0] = True
  env_outputs = StepOutput(
    reward=tf.random.normal([_T, _N]),
    info=StepOutputInfo(*(tf.zeros([_T, _N], dtype) for dtype in ('float32', 'int32', 'bool'))),
    done=tf.constant(done),
    observation=as_observation([_random_array(array) for array in spaces.observation]),
  )
  parameters = tf.random.normal([_T, _N, agent.distribution.num_parameters])
  return agent.distribution.sample(parameters), env_outputs


def _random_array(array: ArraySpec) -> tf.Tensor:
  shape = [_T, _N, *array.shape]
  if array.name == ACTION_MASK:
    return tf.ones(shape, tf.bool)
  if array.dtype == 'float32':
    return tf.random.normal(shape)
  return tf.cast(tf.random.uniform(shape, 0, 256, tf.int32), array.dtype)


def _one_thread() -> tf.compat.v1.ConfigProto:
  """Returns a configuration that takes no GPU and little of the processor."""
  return tf.compat.v1.ConfigProto(
    device_count={'GPU': 0}, inter_op_parallelism_threads=1, intra_op_parallelism_threads=1
  )
