"""Environments whose observation is the number of the step; `counting_env:<Id>` registers them.

Imports neither TensorFlow nor OpenAI Gym, as every worker process imports it.
"""

import os
import pathlib
import random
import signal
import time

import gymnasium
import numpy as np
from gymnasium import spaces

GAME_STEPS = 5
KILL, RAISE = 1, 2  # Actions of Fragile.
# Environment variables, which workers inherit.
BARRIER = 'COUNTING_ENV_BARRIER'
BROKEN = 'COUNTING_ENV_BROKEN'
BARRIER_SECS = 30


class Counting(gymnasium.Env):
  """Observation [step, game], reward step, `game_steps` steps a game; actions change nothing."""

  observation_space = spaces.Box(0, 1e6, (2, 1), np.float64)
  action_space = spaces.Discrete(3, start=7)

  def __init__(self, game_steps=GAME_STEPS):
    self._game_steps = game_steps
    self._game = -1

  def reset(self, *, seed=None, options=None):
    super().reset(seed=seed)
    self._game += 1
    self._step = 0
    return self._observation(), {}

  def step(self, action):
    assert self.action_space.contains(action), action
    self._step += 1
    return self._observation(), self._step, self._step == self._game_steps, False, {}

  def _observation(self):
    return np.array([[self._step], [self._game]], np.float64)


class Image(Counting):
  """Every pixel is the step."""

  observation_space = spaces.Box(0, 255, (4, 3, 2), np.uint8)

  def _observation(self):
    return np.full((4, 3, 2), self._step, np.uint8)


class DeepImage(Counting):
  """Every pixel is the step; a channel more than `Image`."""

  observation_space = spaces.Box(0, 255, (4, 3, 3), np.uint8)

  def _observation(self):
    return np.full((4, 3, 3), self._step, np.uint8)


class BoolImage(Counting):
  """The pixel of the step is set."""

  observation_space = spaces.Box(0, 1, (GAME_STEPS + 1, 1, 1), np.bool_)

  def _observation(self):
    return np.arange(GAME_STEPS + 1).reshape(-1, 1, 1) == self._step


class Numbered(Counting):
  """A Discrete observation whose first value is 3."""

  observation_space = spaces.Discrete(GAME_STEPS + 1, start=3)

  def _observation(self):
    return 3 + self._step


class Random(Counting):
  """Observations come from the generator that the seed makes."""

  observation_space = spaces.Box(0, 1, (1,), np.float32)

  def _observation(self):
    return self.np_random.random(1, np.float32)


class Fragile(Counting):
  """The first action changes nothing, the second kills the process, the third raises."""

  action_space = spaces.Discrete(3)

  def __init__(self):
    super().__init__()
    if os.path.exists(os.environ.get(BROKEN, '')):
      raise OSError('the simulator is gone')

  def step(self, action):
    if action == KILL:
      os.kill(os.getpid(), signal.SIGKILL)
    if action == RAISE:
      raise ArithmeticError('the simulator stumbled')
    return super().step(action)


class Stuck(Fragile):
  """Where the file BROKEN is there, its making or its reset, as the file says, never returns."""

  def __init__(self):
    self._hang('making')
    Counting.__init__(self)

  def reset(self, **kwargs):
    self._hang('reset')
    return super().reset(**kwargs)

  def _hang(self, where):
    path = pathlib.Path(os.environ[BROKEN])
    if path.exists() and path.read_text() == where:
      pathlib.Path(os.environ[BARRIER]).touch()
      time.sleep(600)


class Breaking(Counting):
  """The first action changes nothing, each other breaks another promise."""

  action_space = spaces.Discrete(4, start=2)

  def step(self, action):
    assert action.dtype == self.action_space.dtype and action.item() in (2, 3, 4, 5)
    observation, reward, *others = super().step(action)
    given = {2: observation, 3: observation, 4: observation / 0 * np.inf, 5: observation[0]}
    return given[int(action)], np.nan if action == 3 else np.array([[reward]]), *others


class Held(Counting):
  """A large image, always the same array, every pixel of which is the step."""

  observation_space = spaces.Box(0, 255, (500, 500, 3), np.uint8)
  _image = np.zeros((500, 500, 3), np.uint8)

  def _observation(self):
    self._image.fill(self._step)
    return self._image


class Drawing(Counting):
  """Observations are drawn from its own generator, from Python's and from numpy's."""

  action_space = Fragile.action_space
  observation_space = spaces.Box(0, 1, (3,), np.float32)

  def step(self, action):
    if action == RAISE:
      raise ArithmeticError('the simulator stumbled')
    return super().step(action)

  def _observation(self):
    return np.float32([self.np_random.random(), random.random(), np.random.random()])


class Meeting(Counting):
  """`step` returns only when as many processes as the barrier's directory names are in it."""

  def step(self, action):
    directory = pathlib.Path(os.environ[BARRIER])
    if not (directory / 'count').exists():
      return super().step(action)
    count = int((directory / 'count').read_text())
    name = f'{self._game}-{self._step}'
    (directory / f'{name}-{os.getpid()}').touch()
    give_up = time.monotonic() + BARRIER_SECS
    while len(list(directory.glob(f'{name}-*'))) < count:
      if time.monotonic() > give_up:
        raise TimeoutError('alone at the barrier')
      time.sleep(0.005)
    return super().step(action)


class Slow(Counting):
  """`step` never returns where the barrier has been announced."""

  def step(self, action):
    barrier = pathlib.Path(os.environ[BARRIER])
    if not barrier.with_suffix('.announced').exists():
      return super().step(action)
    barrier.touch()
    return time.sleep(600)


SPACES = {
  'Tuple': spaces.Tuple([spaces.Discrete(2)]),
  'Dict': spaces.Dict({'a': spaces.Discrete(2)}),
  'MultiDiscrete': spaces.MultiDiscrete([2, 3]),
  'MultiBinary': spaces.MultiBinary(4),
  'Text': spaces.Text(3),
  'FloatImage': spaces.Box(0.0, 1.0, (8, 8, 3), np.float32),
  'Stack': spaces.Box(0, 255, (2, 4, 8, 8, 1), np.uint8),
  'Continuous': spaces.Box(-1.0, 1.0, (2,), np.float32),
}


class Refused(Counting):
  """A space that no agent can use."""

  def __init__(self, observation=None, action=None):
    super().__init__()
    self.observation_space = SPACES.get(observation, self.observation_space)
    self.action_space = SPACES.get(action, self.action_space)


for _name in (
  'Counting', 'Image', 'DeepImage', 'BoolImage', 'Numbered', 'Random', 'Fragile', 'Breaking',
  'Stuck', 'Meeting', 'Slow', 'Held', 'Drawing',
):  # fmt: skip
  gymnasium.register(f'{_name}-v0', entry_point=f'counting_env:{_name}')
gymnasium.register(
  'ShortDeepImage-v0',
  entry_point='counting_env:DeepImage',
  kwargs={'game_steps': 3},
)
gymnasium.register(
  'TimeLimit-v0',
  entry_point='counting_env:Counting',
  max_episode_steps=3,
)
gymnasium.register(
  'EndAtTimeLimit-v0',
  entry_point='counting_env:Counting',
  max_episode_steps=3,
  kwargs={'game_steps': 3},
)
for _name in SPACES:
  for _of in ('observation', 'action'):
    gymnasium.register(
      f'{_of.title()}{_name}-v0', entry_point='counting_env:Refused', kwargs={_of: _name}
    )
