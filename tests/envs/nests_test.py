"""envs.nests: Dict, Tuple and text observations become arrays."""

import numpy as np
import pytest
from gymnasium import spaces

from envs import nests
from envs.faults import Misfit
from structs import NUM_WORDS, ArraySpec

GRID = spaces.Dict(
  {
    'direction': spaces.Discrete(4),
    'image': spaces.Box(0, 255, (7, 7, 3), np.uint8),
    'mission': spaces.Text(100),
    'sensors': spaces.Tuple([spaces.Box(-1, 1, (2,), np.float32), spaces.MultiBinary(3)]),
  }
)
SEEN = {
  'direction': 2,
  'image': np.full((7, 7, 3), 9, np.uint8),
  'mission': 'go to the Door',
  'sensors': (np.float32([0.5, -0.5]), np.int8([1, 0, 1])),
}
DIRECTION = ArraySpec('direction', (4,), 'float32')
IMAGE = ArraySpec('image', (7, 7, 3), 'uint8')
MISSION = ArraySpec('mission', (nests.MOST_WORDS,), 'int32')
SENSORS = (ArraySpec('sensors/0', (2,), 'float32'), ArraySpec('sensors/1', (3,), 'float32'))


def test_each_leaf_is_an_array_in_the_order_of_the_space():
  nest = nests.Nest(GRID)
  assert nest.arrays == (DIRECTION, IMAGE, *SENSORS)  # A text has to be chosen.
  direction, image, *sensors = nest.convert(SEEN, strict=True)
  assert direction.tolist() == [0, 0, 1, 0]
  np.testing.assert_array_equal(image, SEEN['image'])
  assert [part.tolist() for part in sensors] == [[0.5, -0.5], [1, 0, 1]]


def test_keys_choose_leaves_and_parts():
  assert nests.Nest(GRID, ['mission', 'image']).arrays == (IMAGE, MISSION)
  assert nests.Nest(GRID, ['sensors']).arrays == SENSORS
  assert nests.Nest(GRID, ['sensors/1']).arrays == SENSORS[1:]


def test_one_chosen_leaf_is_a_single_array():
  image = nests.Nest(GRID, ['image']).convert(SEEN)
  np.testing.assert_array_equal(image, SEEN['image'])


def test_words_are_numbers_that_depend_on_the_word_alone():
  nest = nests.Nest(GRID, ['mission'])
  first = nest.convert(SEEN)
  second = nest.convert({**SEEN, 'mission': 'door to go'})
  assert first.dtype == np.int32 and (first[4:] == 0).all() and (first[:4] > 0).all()
  assert second[:3].tolist() == [first[3], first[1], first[0]]
  long = nest.convert({**SEEN, 'mission': 'a ' * 99})
  assert (long > 0).all() and (long < NUM_WORDS).all()


def test_a_key_that_is_not_there_is_refused_with_those_that_are():
  with pytest.raises(ValueError, match=r"'picture' \(--observation_keys\).*direction, image, miss"):
    nests.Nest(GRID, ['image', 'picture'])
  with pytest.raises(ValueError, match='no keys, it is one array'):
    nests.Nest(GRID['image'], ['image'])


def test_texts_alone_have_to_be_chosen():
  with pytest.raises(ValueError, match='--observation_keys can choose texts'):
    nests.Nest(spaces.Dict({'a': spaces.Text(3)}))


def test_a_leaf_without_encoder_is_refused_by_its_name():
  space = spaces.Dict({'a': spaces.Discrete(2), 'b': spaces.Sequence(spaces.Discrete(2))})
  with pytest.raises(
    ValueError, match=r'supported are images.*\(of its .b.\); --observation_keys can leave it'
  ):
    nests.Nest(space)


@pytest.mark.parametrize(
  'changes, words',
  [
    ({'direction': 4}, 'is 4 where its space promises 0 to 3 (of its '),
    (
      {'image': np.zeros((7, 7))},
      "shape (7, 7) where its space promises (7, 7, 3) (of its 'im",
    ),
    ({'sensors': (np.zeros(2),)}, 'is a tuple of 1 without 1, which'),
    ({'sensors': (np.zeros(2), np.int8([1, 2, 0]))}, "MultiBinary(3) (of its 'sensors/1')"),
  ],
)
def test_observations_outside_the_space(changes, words):
  with pytest.raises(Misfit) as info:
    nests.Nest(GRID).convert({**SEEN, **changes})
  assert words in str(info.value)


def test_a_key_that_is_missing():
  with pytest.raises(Misfit, match="a dict of 3 without 'direction'"):
    nests.Nest(GRID).convert({key: SEEN[key] for key in SEEN if key != 'direction'})


def test_parts_without_numbers_are_left_out():
  parts = {'a': spaces.Box(-1, 1, (0, 3)), 'b': spaces.Discrete(2)}
  nest = nests.Nest(spaces.Dict(parts))
  assert [array.name for array in nest.arrays] == ['b']
  assert nest.notes == ["its observations have a part without numbers, 'a', which is left out"]
  with pytest.raises(ValueError, match='has no elements in its observation .a. '):
    nests.Nest(spaces.Dict(parts), ['a'])
  with pytest.raises(ValueError, match='has observations without numbers$'):
    nests.Nest(parts['a'])


def test_a_space_of_many_choices_takes_little_memory():
  row = nests.Nest(spaces.Discrete(300_000)).convert(299_999)
  assert row.shape == (300_000,) and row.argmax() == 299_999 and row.sum() == 1


def test_large_gray_images_of_any_whole_numbers():
  nest = nests.Nest(spaces.Box(0, 255, (20, 30), np.int64))
  assert nest.arrays == (ArraySpec('', (20, 30, 1), 'uint8'),)
  assert nest.convert(np.full((20, 30), 255)).tolist() == np.full((20, 30, 1), 255).tolist()


@pytest.mark.parametrize('mask', [
  spaces.MultiBinary(5), spaces.Tuple([spaces.MultiBinary(2), spaces.MultiBinary(3)])
])  # fmt: skip
def test_a_mask_is_no_observation(mask):
  nest = nests.Nest(spaces.Dict(sight=spaces.Discrete(2), action_mask=mask))
  assert nest.holds_mask and [array.name for array in nest.arrays] == ['sight']


class Own(spaces.Box):
  """A space that inherits from one of Gymnasium's."""


class OwnParts(spaces.Dict):
  """Likewise."""


@pytest.mark.parametrize(
  'space, seen, expected',
  [
    (Own(-1, 1, (2,), np.float32), [0.5, -0.5], [0.5, -0.5]),
    (spaces.MultiDiscrete([2, 3], start=[5, 0]), [6, 2], [0, 1, 0, 0, 1]),
    (spaces.MultiBinary((2, 2)), [[1, 0], [0, 1]], [1, 0, 0, 1]),
    (spaces.Box(0, 1, (4, 5, 2), np.float32), np.full((4, 5, 2), 0.5), np.full((4, 5, 2), 0.5)),
    (spaces.Box(-10, 10, (4, 5, 2)), np.full((4, 5, 2), 5.0), np.full((4, 5, 2), 0.5)),
    (spaces.Box(0, 255, (20, 30), np.float32), np.full((20, 30), 51), np.full((20, 30, 1), 0.2)),
    (spaces.Box(0, 1, (3, 20, 30), np.float32), np.zeros((3, 20, 30)), np.zeros((20, 30, 3))),
    (spaces.Box(0, 9999, (4, 5, 2), np.int32), np.full((4, 5, 2), 9999), np.ones((4, 5, 2))),
    # Such bounds say nothing about the scale.
    (spaces.Box(-3e38, 3e38, (4, 5, 2)), np.full((4, 5, 2), 7), np.full((4, 5, 2), 7)),
    (spaces.Box(0, 2**31 - 1, (4, 5, 2), np.int32), np.full((4, 5, 2), 7), np.full((4, 5, 2), 7)),
    (spaces.Discrete(4, start=5), 7, [0, 0, 1, 0]),
  ],
  ids=str,
)
def test_single_spaces(space, seen, expected):
  nest = nests.Nest(space)
  converted = nest.convert(np.asarray(seen).astype(space.dtype), strict=True)
  np.testing.assert_allclose(converted, np.float32(expected))
  assert nest.arrays == (ArraySpec('', converted.shape, 'float32'),)
  assert converted.dtype == np.float32


def test_parts_of_an_own_class():
  nest = nests.Nest(OwnParts({'a': spaces.Discrete(2), 'b': Own(-1, 1, (2,), np.float32)}))
  assert [array.name for array in nest.arrays] == ['a', 'b']
  assert nest.convert({'a': 1, 'b': np.float32([0.5, 1])})[1].tolist() == [0.5, 1]


@pytest.mark.parametrize('dtype', [np.uint8, np.float32])
@pytest.mark.parametrize('axes', ['KHWC', 'KCHW'])
def test_the_frames_of_a_stack_become_channels(axes, dtype):
  sides = dict(K=2, H=16, W=20, C=3)
  shape = tuple(sides[axis] for axis in axes)
  nest = nests.Nest(spaces.Box(0, 255, shape, dtype))
  assert nest.arrays == (ArraySpec('', (16, 20, 6), np.dtype(dtype).name),)
  assert '(16, 20, 6)' in nest.notes[0] and '2 images' in nest.notes[0]
  seen = np.random.default_rng(1).integers(0, 256, shape).astype(dtype)
  frames = seen if axes == 'KHWC' else np.moveaxis(seen, 1, -1)
  scale = 255 if dtype == np.float32 else 1
  converted = nest.convert(seen, strict=True)
  np.testing.assert_allclose(converted, np.concatenate(list(frames), axis=-1) / scale, rtol=1e-6)
