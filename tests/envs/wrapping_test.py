"""envs.wrapping and envs.level_ids: keywords, wrappers, imports and plug-ins of an environment."""

import gymnasium
import pytest

import environments
from counting_env import Counting
from environment_player import playing
from envs import level_ids
from structs import Level

STEPS = Level('Steps-v0', '{"game_steps": 3}', imports='wrapped_env:register')


@pytest.fixture(autouse=True)
def unregistered():
  yield
  gymnasium.registry.pop('Steps-v0', None)


def return_of(level):
  """The return of the first game, as it is played in a worker process."""
  with playing(level, 1) as player:
    player.initial()
    while True:
      output = player.step()
      if output.info.game_over[0]:
        return float(output.info.episode_return[0])


def test_keywords_wrappers_and_imports_reach_the_worker_in_their_order():
  assert return_of(STEPS) == 3
  within = STEPS._replace(env_wrappers='wrapped_env.Plus:{"n": 10},wrapped_env.Double')
  assert return_of(within) == 3 * (1 + 10) * 2
  around = STEPS._replace(env_wrappers='wrapped_env.Double,wrapped_env.Plus:{"n": 10}')
  assert return_of(around) == 3 * (1 * 2 + 10)


@pytest.mark.parametrize('name', ['env_id', 'gym', 'level', 'made_as'])
def test_a_keyword_may_have_any_name(name):
  given = {}
  gymnasium.register('Steps-v0', lambda **kwargs: given.update(kwargs) or Counting())
  level_ids.make(Level('Steps-v0', f'{{"{name}": 5}}'))
  assert given == {name: 5}


def test_wrappers_of_gymnasium_change_the_spaces():
  level = Level('CartPole-v1', env_wrappers='gymnasium.wrappers.TimeAwareObservation')
  assert environments.environment_spec(level).observation[0].shape == (5,)


@pytest.mark.parametrize('changes, sentence', [
  (dict(imports='no_such'), "--import=no_such: ModuleNotFoundError: .* on PYTHONPATH"),
  (dict(imports='wrapped_env:registre'), 'wrapped_env has no registre; did you mean register[?]'),
  (dict(imports='wrapped_env:fail'), 'import=wrapped_env:fail raised RuntimeError .*: no licence'),
  (dict(imports='wrapped_env:NOT_CALLABLE'), 'NOT_CALLABLE is of type int, not a function'),
  (dict(imports=''), 'known to neither .* need --import=PACKAGE; the closest are'),
  (dict(env_kwargs='{"steps": 3}'), '--env_kwargs={"steps": 3} does not fit Steps-v0: '
   "'steps' is no keyword of it; its keywords are game_steps, render_mode"),
  (dict(env_kwargs='{"game_steps": 3, "max_episode_steps": "x"}'), 'cannot be made with --env_kw'),
  (dict(env_wrappers='wrapped_env.Doubel'), 'wrapped_env has no Doubel; did you mean Double[?]'),
  (dict(env_wrappers='wrapped_env.Late'), "wrapped_env.Late: Module.*: No module named 'torch'$"),
  (dict(env_wrappers='gymnasium.wrapper.ClipReward'), 'did you mean gymnasium.wrappers[?]$'),
  (dict(env_wrappers='wrapped_env.Strict'), r'Error \(wrapped_env.py:\d+\): assert env is No'),
  (dict(env_wrappers='wrapped_env.Sum:{"numbers": ["a"]}'), "'tuple' object has no attribute"),
  (dict(env_wrappers='no_such.Wrapper'), '--env_wrappers=no_such.Wrapper: ModuleNotFoundError: '),
  (dict(env_wrappers='wrapped_env.Plus:{"m": 1}'), "wrapped_env.Plus: 'm' is no keyword .* are n"),
  (dict(env_wrappers='wrapped_env.Double:{"m": 1}'), "'m' is no keyword of it; it has none"),
  (dict(env_wrappers='wrapped_env.Broken'), r"KeyError \(wrapped_env.py:\d+\): 'out of order'"),
  (dict(env_wrappers='wrapped_env.NOT_CALLABLE'), 'it is of type int, not a class or function'),
  (dict(env_wrappers='wrapped_env.no_wrapper'), 'is of type str and no environment, it has no re'),
])  # fmt: skip
def test_a_mistake_is_one_sentence_that_names_the_flag(changes, sentence):
  with pytest.raises(ValueError, match=sentence) as info:
    level_ids.make(STEPS._replace(**changes))
  assert '\n' not in str(info.value)


@pytest.mark.parametrize('numbers', ['[1, 2]', '[[1], [2]]'])
def test_a_list_of_numbers_becomes_an_array_where_a_tuple_raises(numbers):
  assert return_of(STEPS._replace(env_wrappers=f'wrapped_env.Sum:{{"numbers": {numbers}}}')) == 12


def test_a_keyword_of_an_environment_becomes_an_array_where_a_tuple_raises():
  given = []
  gymnasium.register('Steps-v0', lambda start: given.append(start.max()) or Counting())
  level_ids.make(Level('Steps-v0', '{"start": [3, 4]}'))
  assert given == [4]


def test_a_wrapper_that_raises_is_named():
  level = STEPS._replace(env_wrappers='wrapped_env.Fails,wrapped_env.Double')
  said = r'^the wrapper Fails around your environment raised RuntimeError in step \(wrapped_env.py:'
  with pytest.raises(ValueError, match=said):
    environments.environment_spec(level)


def test_a_mistake_is_found_before_training():
  with pytest.raises(ValueError, match='--env_wrappers=wrapped_env.Broken raised KeyError'):
    environments.environment_spec(STEPS._replace(env_wrappers='wrapped_env.Broken'))


def test_plug_ins_of_installed_packages_register_their_ids(tmp_path, monkeypatch):
  """As those that Gymnasium loaded itself before version 1.0; one that fails is left out."""
  info = tmp_path / 'plugged-1.0.dist-info'
  info.mkdir()
  (info / 'METADATA').write_text('Metadata-Version: 2.1\nName: plugged\nVersion: 1.0\n')
  (info / 'entry_points.txt').write_text(
    '[gymnasium.envs]\nBad=wrapped_env:fail\nPlugged=plugged:register\n'
  )
  (tmp_path / 'plugged.py').write_text(
    'import gymnasium, wrapped_env\n'
    'def register():\n'
    "  gymnasium.register('Steps-v3', wrapped_env.Steps, kwargs=dict(game_steps=3))\n"
  )
  monkeypatch.syspath_prepend(tmp_path)
  level_ids.load_plugins.cache_clear()
  try:
    assert level_ids.make('Plugged/Steps-v3').unwrapped._game_steps == 3
    gymnasium.register('Steps-v0', gymnasium.Env)  # Outside of the plug-in's namespace again.
    assert 'Steps-v0' in gymnasium.registry
  finally:
    gymnasium.registry.pop('Plugged/Steps-v3', None)
    level_ids.load_plugins.cache_clear()
