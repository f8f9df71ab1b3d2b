"""envs.actions: agents' actions become elements of the action space; action masks."""

import numpy as np
import pytest
from gymnasium import spaces

from envs import actions
from envs.faults import Misfit
from structs import ActionPart, action_dtype, action_shape

NUMBERS = spaces.Box(np.float32([0, -2, -np.inf]), np.float32([10, 2, 1]), (3,))
MIXED = spaces.Dict(
  {
    'a': spaces.Discrete(3, start=5),
    'b': spaces.Tuple([NUMBERS, spaces.MultiBinary((2, 1))]),
    'c': spaces.MultiDiscrete([2, 4]),
  }
)


def same(one, other):
  """Whether two elements of a space are equal, with equal types."""
  if isinstance(one, dict):
    return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
  if isinstance(one, tuple):
    return len(one) == len(other) and all(map(same, one, other))
  return np.asarray(one).dtype == np.asarray(other).dtype and np.array_equal(one, other)


class Own(spaces.Discrete):
  """A space that inherits from one of Gymnasium's."""


@pytest.mark.parametrize(
  'space, action, element',
  [
    (Own(3), 2, np.int64(2)),
    (spaces.Discrete(3, start=5), 2, np.int64(7)),
    (spaces.MultiDiscrete([2, 4], start=[0, 3]), [1, 2], np.int64([1, 5])),
    (spaces.MultiDiscrete([[2], [4]]), [1, 2], np.int64([[1], [2]])),
    (spaces.MultiDiscrete([4]), 3, np.int64([3])),
    (spaces.MultiBinary(3), [1, 0, 1], np.int8([1, 0, 1])),
    # Scaled from [-1, 1] to the bounds, and clipped; without two bounds only clipped.
    (NUMBERS, [0.5, -1, -3], np.float32([7.5, -2, -3])),
    (NUMBERS, [-3, 3, 3], np.float32([0, 2, 1])),
    (spaces.Box(0, 4, (1, 2), np.int32), [0.2, 9], np.int32([[2, 4]])),
    (spaces.Box(-3e38, 3e38, (1,), np.float32), [0.25], np.float32([0.25])),
    # Ranges on one side of 0: an action of 0 becomes 1 inside the bound.
    (
      spaces.Box(np.float32([100, 0, -np.inf]), np.float32([np.inf, np.inf, -5])),
      [0.5, -3, 0],
      np.float32([101.5, 0, -6]),
    ),
    (spaces.Box(0, 1, (3,), np.bool_), [-0.9, -0.2, 0.9], np.bool_([False, False, True])),
    (
      MIXED,
      [2, 0, 0, 0, 1, 0, 1, 3],
      {
        'a': np.int64(7),
        'b': (np.float32([5, 0, 0]), np.int8([[1], [0]])),
        'c': np.int64([1, 3]),
      },
    ),
  ],
  ids=str,
)
def test_actions_become_elements_of_the_space(space, action, element):
  view = actions.view_of(space)
  given = np.array(action, action_dtype(view.parts)).reshape(action_shape(view.parts))
  converted = view.convert(given)
  assert same(converted, element), converted
  assert space.contains(converted) and space.contains(view.first())


def test_the_parts_are_in_the_order_of_the_space():
  numbers = ActionPart('continuous', 3, (0.0, -2.0, None), (10.0, 2.0, 1.0))
  choices = ActionPart('discrete', 2), ActionPart('discrete', 4)
  parts = actions.view_of(MIXED).parts
  assert parts == (ActionPart('discrete', 3), numbers, ActionPart('binary', 2), *choices)
  assert (action_shape(parts), action_dtype(parts)) == ((8,), 'float32')
  assert (action_shape(parts[:1]), action_dtype(parts[:1])) == ((), 'int32')
  assert actions.num_choices(parts) == 3 + 2 + 4


@pytest.mark.parametrize(
  'space', [spaces.Text(3), spaces.Tuple([spaces.Discrete(2), spaces.Text(2)]), spaces.Tuple([])]
)
def test_other_spaces_are_refused(space):
  with pytest.raises(ValueError, match='supported are Discrete, MultiDiscrete, MultiBinary, Box'):
    actions.view_of(space)


PARTS = actions.view_of(MIXED).parts


@pytest.mark.parametrize(
  'parts, value, mask',
  [
    (PARTS[:1], np.int8([0, 1, 1]), [0, 1, 1]),
    (PARTS[:1], [False, True, False], [0, 1, 0]),
    (PARTS, np.bool_([1, 0, 0, 0, 1, 1, 1, 1, 0]), [1, 0, 0, 0, 1, 1, 1, 1, 0]),
    (
      PARTS,
      (np.int8([1, 0, 0]), np.int8([0, 1]), np.int8([1, 1, 1, 0])),
      [1, 0, 0, 0, 1, 1, 1, 1, 0],
    ),
  ],
  ids=str,
)
def test_masks(parts, value, mask):
  converted = actions.mask_of(value, parts)
  assert converted.dtype == bool and converted.tolist() == [bool(bit) for bit in mask]


@pytest.mark.parametrize(
  'parts, value, words',
  [
    (PARTS[:1], [1, 1], 'is a list of 2 where 3 zeros and ones are wanted'),
    (PARTS[:1], None, 'is None where 3'),
    (PARTS[:1], [0, 0, 0], 'allows no action'),
    (PARTS, [1, 0, 0, 0, 0, 1, 1, 1, 0], 'allows no action'),
  ],
)
def test_bad_masks(parts, value, words):
  with pytest.raises(Misfit) as info:
    actions.mask_of(value, parts)
  assert words in str(info.value)
