"""envs.checks and what it stands on: what an environment gives is understood, or told in words."""

import fractions
import os
import subprocess
import sys
import textwrap

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from conftest import ROOT
from envs import checks, faults, level_ids, nests, observations, pictures, results
from envs.actions import view_of as actions_of
from structs import Level

VECTOR = spaces.Box(-1, 1, (2,), np.float32)
BYTES = spaces.Box(0, 255, (8, 9, 3), np.uint8)
FITS = np.array([0.5, -1], np.float32)


class Giving(gymnasium.Env):
  """Gives whatever it is told to."""

  action_space = spaces.Discrete(2)

  def __init__(self, space=VECTOR, first=FITS, reward=1.0, terminated=False, truncated=False):
    self.observation_space, self._first = space, first
    self._step = first, reward, terminated, truncated, {}

  def reset(self, *, seed=None, options=None):
    return self._first, {}

  def step(self, action):
    return self._step


ACTIONS = actions_of(spaces.Discrete(2))


def problems(env, wrapped=True):
  nest = nests.Nest(env.observation_space)
  env = gymnasium.wrappers.TimeLimit(env, 9) if wrapped else env
  found, _, _ = checks.check(env, nest, ACTIONS, 'auto', 3)
  return found


def notes(*args):
  env = Giving(*args)
  found, said, _ = checks.check(env, nests.Nest(env.observation_space), ACTIONS, 'auto', 3)
  assert not found
  return said


def test_what_fits_is_not_mentioned():
  for given in (FITS, FITS.astype(np.float64), [0.5, 1]):
    assert notes(VECTOR, given) == []
  assert notes(BYTES, np.full((8, 9, 3), 7, np.uint8)) == []
  assert notes(VECTOR, np.float64([1 + 1e-7, -1])) == []  # Rounded to float32 it is 1.


@pytest.mark.parametrize(
  'given, said',
  [
    (dict(first=np.zeros(3)), 'observation has shape (3,) where its space promises (2,)'),
    (dict(first=np.float32([np.inf, 0])), 'observation holds inf at [0]'),
    (dict(first=None), 'observation is None where its space promises numbers of shape (2,)'),
    (dict(first='ab'), "observation is 'ab' where"),
    (dict(first=[[1], [1, 2]]), 'observation is a list of 2 where'),
    (dict(first=np.array([1 + 1j, 0])), 'observation is complex128 of shape (2,) where'),
    (dict(space=spaces.Discrete(4), first=4), 'observation is 4 where its space promises 0 to 3'),
    (dict(space=spaces.Discrete(4), first=-1), 'observation is -1 where'),
    (dict(space=spaces.Discrete(4), first=1.5), 'observation is 1.5 where'),
    (dict(space=BYTES, first=np.full((8, 9, 3), 300)), 'observation goes from 0 to 300 where'),
    (dict(space=BYTES, first=np.full((8, 9, 3), -1)), 'observation goes from -1 to 0 where'),
    (dict(space=BYTES, first=np.full((8, 9, 3), 0.9)), 'return (255 * image).astype(numpy.uint8)'),
    (dict(space=BYTES, first=np.full((8, 9, 3), 9.0)), 'return (image).astype(numpy.uint8)'),
    (dict(space=BYTES, first=np.zeros((3, 8, 9), np.uint8)), 'has shape (3, 8, 9) where'),
    (dict(reward=None), 'reward is None, which is no number'),
    (dict(reward='1'), "reward is '1', which is no number"),
    (dict(reward=np.zeros(2)), 'reward is float64 of shape (2,), which is no number'),
    (dict(reward=[1, 2]), 'with several agents or rewards, a wrapper has to make one'),
    (dict(reward=1j), 'reward is 1j, which is no number'),
    (dict(reward={'a': 1}), 'reward is a dict of 1, which is no number'),
    (dict(reward=float('-inf')), 'reward is -inf'),
    (dict(reward=1e39), 'reward is 1e+39'),
    (dict(terminated=None), '`terminated` is None, which is neither true nor false'),
    (dict(truncated='no'), "`truncated` is 'no', which is neither"),
    (dict(terminated=np.array([True, False])), '`terminated` is bool of shape (2,), which'),
  ],
)  # fmt: skip
def test_what_does_not_fit_is_one_sentence(given, said):
  (problem,) = problems(Giving(**given), wrapped='terminated' not in given)
  assert problem.startswith('its ') and said in problem, problem


def test_each_misfit_is_told():
  found = problems(Giving(first=np.zeros(3), reward=None, truncated=7), wrapped=False)
  assert [problem.split()[1] for problem in found] == ['observation', 'reward', '`truncated`']


def test_one_element_is_a_number():
  ones = 1, True, np.float16(1), np.array(1), np.array([[1.0]]), [1], np.bool_(True)
  assert [results.number(one) for one in (*ones, fractions.Fraction(1))] == [1.0] * 8
  assert type(results.number(np.array([2]))) is float
  truths = [results.truth('terminated', one) for one in (True, 1, np.array([1]), np.bool_(True))]
  assert truths == [True] * 4 and type(truths[2]) is bool


class WithoutOptions(Giving):
  def reset(self, seed=None):
    return FITS, {}


class PositionalOnly(Giving):
  def reset(self, seed=None, options=None, /):
    return FITS, {}


class WithoutInfo(Giving):
  def reset(self, **kwargs):
    return FITS, 'no dict'


class FourValues(Giving):
  def step(self, action):
    return FITS, 1.0, False, {}


class Failing(Giving):
  def step(self, action):
    return np.linalg.inv(np.zeros([2, 3]))  # Fails in numpy, called in this line.


@pytest.mark.parametrize('wrapped', [True, False])
@pytest.mark.parametrize(
  'kind, said',
  [
    (WithoutOptions, 'its reset() does not take `options`, which Gymnasium passes: write '),
    (PositionalOnly, 'its reset() does not take `seed` and `options`, which'),
    (WithoutInfo, 'its reset() returned a tuple of 2 where Gymnasium wants (observation, info)'),
    (FourValues, 'its step() returned a tuple of 4 of the old API where Gymnasium wants (obs'),
    (Failing, 'your environment raised LinAlgError in step (checks_test.py:'),
  ],
)  # fmt: skip
def test_what_is_not_gymnasium_is_told_though_a_wrapper_stumbles_over_it(kind, said, wrapped):
  env = kind()
  if wrapped:
    env = gymnasium.wrappers.OrderEnforcing(gymnasium.wrappers.TimeLimit(env, 5))
  elif kind in (WithoutOptions, PositionalOnly):
    env = gymnasium.Wrapper(env)  # Passes both.
  found, _, _ = checks.check(env, nests.Nest(VECTOR), ACTIONS, 'auto', 3)
  assert len(found) == 1 and found[0].startswith(said), found
  assert 'reset' not in vars(env.unwrapped) and 'step' not in vars(env.unwrapped)


def test_a_step_of_the_object_itself_stays():
  env = Giving()
  env.step = step = lambda action: (FITS, 2.0, False, False, {})
  assert problems(env) == [] and env.step is step


@pytest.mark.parametrize('space, where', [(VECTOR, ''), (spaces.Dict(a=VECTOR), " (of its 'a')")])
def test_numbers_outside_of_the_bounds_are_taken(space, where):
  numbers = np.float32([0, 1.5])
  first = numbers if space is VECTOR else {'a': numbers}
  said = f'its observation holds 1.5 at [1] where its space promises -1 to 1{where}'
  assert notes(space, first) == [f'{said}; it is taken as it is']
  assert nests.Nest(space).convert(first).tolist() == [0, 1.5]


class OwnBox(spaces.Box):
  """A space that inherits from one of Gymnasium's."""


@pytest.mark.parametrize(
  'space, first, seen, note',
  [
    # Channels first.
    (spaces.Box(0, 255, (3, 20, 30), np.uint8), np.arange(1800).reshape(3, 20, 30).astype(np.uint8),
     lambda x: np.moveaxis(x, 0, 2), 'have their channels first'),
    # A stack of images.
    (OwnBox(0, 255, (2, 16, 20, 3), np.uint8),
     np.arange(1920).reshape(2, 16, 20, 3).astype(np.uint8),
     lambda x: np.concatenate(list(x), axis=-1), 'taken as 2 images'),
    (spaces.Box(0, 255, (2, 3, 16, 20), np.uint8),
     np.arange(1920).reshape(2, 3, 16, 20).astype(np.uint8),
     lambda x: np.moveaxis(x.reshape(6, 16, 20), 0, 2), 'taken as 2 images'),
    # Gray, without channels.
    (spaces.Box(0, 255, (20, 17), np.uint8), np.arange(340).reshape(20, 17).astype(np.uint8),
     lambda x: x[..., None], 'taken as gray images (20, 17, 1)'),
    # Bytes that would all be black.
    (spaces.Box(0, 1, (6, 5, 2), np.uint8), np.arange(60).reshape(6, 5, 2).astype(np.uint8) % 2,
     lambda x: x * 255, 'multiplied by 255'),
    (spaces.Box(0, 10, (6, 5, 2), np.int64), np.arange(60).reshape(6, 5, 2) % 11,
     lambda x: x * 25, 'multiplied by 25'),
    # Other kinds than promised.
    (BYTES, np.ones((8, 9, 3), np.bool_), lambda x: x * 255, 'are bool where its space'),
    (spaces.Box(0, 200, (6, 5, 2), np.uint8), np.full((6, 5, 2), 255, np.uint8), lambda x: x,
     'goes from 0 to 255 where its space promises uint8 from 0 to 200; it is taken as it is'),
    (VECTOR, np.int64([1, 0]), lambda x: x, 'are int64 where its space promises float32'),
  ],
)  # fmt: skip
def test_what_can_be_understood_is_and_that_is_said(space, first, seen, note):
  (said,) = notes(space, first)
  assert note in said
  view = observations.view_of(space)
  converted = view.convert(first)
  np.testing.assert_array_equal(converted, seen(first.astype(np.int64)))
  assert (converted.shape, converted.dtype) == (view.shape, view.dtype)


@pytest.mark.parametrize('shape', [(10, 5, 1), (4, 4, 16), (7, 7, 3), (5, 7, 16), (16, 16, 16)])
def test_boards_keep_their_axes(shape):
  assert observations.view_of(spaces.Box(0, 255, shape, np.uint8)).shape == shape


def test_small_numbers_above_their_bound_are_at_most_255():
  view = observations.view_of(spaces.Box(0, 10, (6, 5, 2), np.int64))
  assert view.convert(np.full((6, 5, 2), 11)).max() == 255
  assert view.convert(np.full((6, 5, 2), 9)).max() == 225


def test_a_tuple_of_unlike_arrays_fits():
  parts = spaces.Box(0, 255, (20, 20, 3), np.uint8), spaces.Discrete(3), VECTOR
  assert notes(spaces.Tuple(parts), (np.zeros((20, 20, 3), np.uint8), 2, FITS)) == []


def test_small_tables_of_bytes_stay_vectors():
  assert observations.view_of(spaces.Box(0, 255, (4, 4), np.uint8)).shape == (16,)


@pytest.mark.parametrize(
  'env_id, right',
  [
    ('breakout', 'BreakoutNoFrameskip-v4'),
    ('space_invaders', 'SpaceInvadersNoFrameskip-v4'),
    ('ALE/qbert', 'ALE/Qbert-v5'),
    ('SeaquestDeterministic-v0', 'SeaquestNoFrameskip-v4'),
    ('mountaincar-v3', 'MountainCar-v0'),
    ('BipedalWalker-v2', 'BipedalWalker-v3'),
    ('Acrobot', 'Acrobot-v1'),
    ('nothing-v0', ''),
  ],
)
def test_an_old_or_short_name_has_an_id_that_works(env_id, right):
  assert level_ids.working_id(env_id, level_ids._known_ids()) == right


def test_an_id_of_an_old_version_is_answered():
  with pytest.raises(ValueError, match='the id that works is LunarLanderContinuous-v3'):
    level_ids.make('LunarLanderContinuous-v2')
  with pytest.raises(ValueError, match='the id that works is FreewayNoFrameskip-v4; the closest'):
    level_ids.make('freeway')


def test_a_missing_package_is_installed_by_the_python_that_runs():
  said = faults.installable('pygame is not installed, run `pip install "gymnasium[classic]"`')
  assert said.endswith('bin/pip install pygame`') and '[classic]' not in said
  said = faults.installable('run `pip install "gymnasium[box2d]"` first')
  assert said.endswith('bin/pip install "gymnasium[box2d]"` first') and said != 'run `pip install'


@pytest.mark.parametrize(
  'rendered, seen',
  [
    (np.full((4, 6, 3), 0.8), 204),
    (np.full((4, 6), 1.0, np.float32), 255),
    (np.full((4, 6, 1), True), 255),
    (np.full((4, 6, 3), 200.4), 200),
    (np.full((3, 4, 6), 7, np.uint8), 7),
    (np.full((4, 6, 3), 9, np.int64), 9),
    (np.full((4, 6, 4), 100, np.uint8), 39),
    (np.dstack([np.full((4, 6, 3), 100), np.full((4, 6), 255)]).astype(np.uint8), 100),
    ([np.zeros((4, 6, 3), np.uint8), np.full((4, 6, 3), 5, np.uint8)], 5),
  ],
)
def test_whatever_is_rendered_becomes_a_picture(rendered, seen):
  picture = pictures.Pictures()(rendered)
  assert picture.dtype == np.uint8
  np.testing.assert_array_equal(picture, np.full((4, 6, 3), seen))


def test_floats_keep_the_scale_that_was_seen():
  seen = pictures.Pictures()
  assert seen(np.full((2, 2, 3), 0.5)).max() == 128
  assert seen(np.full((2, 2, 3), 100.0)).max() == 100
  assert seen(np.full((2, 2, 3), 1.0)).max() == 1  # Dark, in a film of 0 to 255.


@pytest.mark.parametrize(
  'rendered, said',
  [
    (None, 'render() returned None where an image'),
    ('text', "render() returned 'text' where"),
    (np.zeros((5, 6, 2)), 'float64 of shape (5, 6, 2) where'),
    (np.zeros(12, np.uint8), 'uint8 of shape (12,) where'),
    (np.zeros((0, 6, 3)), 'float64 of shape (0, 6, 3) where'),
    (np.full((4, 6, 3), 1000), 'of 0 to 1 or 0 to 255; it goes from 1000 to 1000'),
    (np.full((4, 6, 3), -0.5), 'it goes from -0.5 to -0.5'),
    (np.full((4, 6, 3), np.nan), 'it goes from nan to nan'),
  ],
)
def test_what_is_no_picture_is_told(rendered, said):
  with pytest.raises(faults.Misfit) as info:
    pictures.Pictures()(rendered)
  assert said in str(info.value)


def test_frames_per_second_are_sensible():
  rates = [pictures.frames_per_sec({'render_fps': fps}) for fps in (None, 0, -1, 'x', 12.5, 1e6)]
  assert rates == [30, 30, 30, 30, 12.5, 240]


def test_the_start_refuses_what_cannot_be_played(tmp_path):
  (tmp_path / 'gridlab.py').write_text(
    textwrap.dedent(
      """
      import gymnasium
      class Grid(gymnasium.Env):
        observation_space, action_space = gymnasium.spaces.Discrete(9), gymnasium.spaces.Discrete(4)
        def reset(self, *, seed=None, options=None):
          return {}['start'], {}
      gymnasium.register('Grid-v0', Grid)
      """
    )
  )
  done = subprocess.run(
    [sys.executable, os.path.join(ROOT, 'experiment.py'), '--level_name=gridlab:Grid-v0',
     '--logdir=run'],
    cwd=tmp_path, env={**os.environ, 'PYTHONPATH': str(tmp_path)}, capture_output=True, text=True,
  )  # fmt: skip
  assert done.returncode == 2
  assert done.stderr.splitlines() == [
    'experiment.py: --level_name=gridlab:Grid-v0: your environment raised KeyError in reset '
    "(gridlab.py:6): 'start'"
  ]
  assert not (tmp_path / 'run').exists()


OWN = """
import gymnasium, numpy as np
class Own(gymnasium.Env):
  observation_space = gymnasium.spaces.Box(0, 1, (2,), np.float32)
  action_space = gymnasium.spaces.Discrete(3, start=5)
  def reset(self, *, seed=None, options=None):
    return np.zeros(2, np.float32), {}
  def step(self, action):
    assert action.dtype == self.action_space.dtype and action.item() == 5
    return np.zeros(2, np.float32), 1.0, False, False, {}
"""


def test_own_packages_with_names_of_this_project_are_found(tmp_path):
  for package in ('envs', 'roles'):
    (tmp_path / package).mkdir()
  (tmp_path / 'envs' / '__init__.py').touch()
  (tmp_path / 'roles' / '__init__.py').write_text('import environments')
  (tmp_path / 'roles' / 'hero.py').write_text('from learner import Own')
  (tmp_path / 'envs' / 'batch.py').write_text(OWN)
  (tmp_path / 'learner.py').write_text('from envs.batch import Own')
  (tmp_path / 'environments.py').write_text(
    'import gymnasium\ngymnasium.register("Own-v0", "roles.hero:Own")'
  )
  code = (
    f'import sys; sys.path.insert(0, {ROOT!r}); import environments; '
    'print([environments.environment_spec(f"{m}:Own-v0").action[0].size for m in '
    '("environments", "roles")], environments.environment_spec("impala/Catch-v0").action[0].size)'
  )
  done = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, cwd=tmp_path,
    env={**os.environ, 'PYTHONPATH': str(tmp_path)},
  )  # fmt: skip
  assert done.stdout == '[3, 3] 3\n', done.stderr


@pytest.mark.parametrize('module', ['evaluation.maze', 'nets'])
def test_a_package_of_this_project_that_hides_another_is_named(module):
  with pytest.raises(ValueError, match='is a part of this project, .* none of yours was found'):
    error = ModuleNotFoundError('No module', name=module)
    raise ValueError(level_ids._sentence(Level(f'{module}:Maze-v0'), module, 'Maze-v0', {}, error))
