"""common.suites: the levels that --level_name means, and the files in suites/."""

import json

import pytest

import config
from common import keywords, suites
from reporting import scores
from structs import Level


@pytest.mark.parametrize('name', suites.names())
def test_a_suite_is_whole(name):
  suite = suites.find(name)
  assert suite and suite.about and suite.package and suite.levels
  assert keywords.imports_of(suite.imports) or not suite.imports
  for level, entry in suite.levels.items():
    assert set(entry) <= {'kwargs', 'random', 'reference'}, level
    low, high = (scores.normalised_score(level, value) for value in (0.0, 1e6))
    assert low is not None and high is not None and low < high, f'{level} has no reference score'


def test_the_levels_are_those_of_the_command_in_its_order():
  flags = config.RunFlags(level_name=suites.canonical_levels('B-v0, A-v0'), env_kwargs='{"a": 1}')
  assert flags.level_names == ('B-v0', 'A-v0')
  assert flags.levels == (Level('B-v0', '{"a": 1}'), Level('A-v0', '{"a": 1}'))
  assert flags.level == flags.levels[0]


def test_a_suite_brings_its_imports_before_those_of_the_command():
  flags = config.RunFlags(level_name='minatar', imports='mine')
  assert len(flags.levels) == 5
  assert flags.levels[1] == Level('MinAtar/Breakout-v0', imports='minatar.gym:register_envs,mine')


def test_levels_of_a_suite_come_in_the_order_of_its_file_with_their_keywords(tmp_path, monkeypatch):
  levels = {'B-v0': {'kwargs': {'a': 1, 'b': 2}}, 'A-v0': {}}
  (tmp_path / 'own.json').write_text(json.dumps(dict(about='x', package='y', levels=levels)))
  monkeypatch.setattr(suites, 'FOLDER', str(tmp_path))
  suites.find.cache_clear()
  try:
    flags = config.RunFlags(level_name='own', env_kwargs='{"b": 3}')
    assert flags.levels == (Level('B-v0', '{"a": 1, "b": 3}'), Level('A-v0', '{"b": 3}'))
  finally:
    suites.find.cache_clear()


def test_keywords_of_the_command_go_before_those_of_a_suite():
  assert keywords.joined({'a': 1, 'b': 2}, '{"b": 3}') == '{"a": 1, "b": 3}'
  assert keywords.joined({}, '{"b":3}') == '{"b":3}'


def test_reference_scores_are_people_for_atari_and_those_of_a_suite_for_others():
  assert scores.normalised_score('PongNoFrameskip-v4', 14.6) == 1
  assert scores.normalised_score('MinAtar/Freeway-v0', 47) == 1
  assert scores.normalised_score('MinAtar/Freeway-v0', 0.12) == 0
  assert scores.normalised_score('impala/Catch-v0', 1) is None
