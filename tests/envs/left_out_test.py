"""ale-py (GPL, with the ROMs) and OpenAI Gym may be left out of an installation."""

import sys

import pytest

import environments
from envs import atari, level_ids


@pytest.fixture(params=[('ale_py',), ('gym',), ('ale_py', 'gym')], ids='-'.join)
def without(request, monkeypatch):
  """Their names, which cannot be imported meanwhile."""
  for name in request.param:
    monkeypatch.setitem(sys.modules, name, None)
  return request.param


def test_all_other_environments_are_made(without):
  for level_name in ('impala/Catch-v0', 'CartPole-v1'):
    assert not atari.is_atari(level_name)
    assert environments.environment_spec(level_name).action[0].size > 1
  level_ids.make('CartPole-v1').close()


def test_an_unknown_id_is_still_answered(without):
  with pytest.raises(ValueError, match='the id that works is CartPole-v1') as info:
    level_ids.make('cartpole')
  assert ('need the package ale-py, which is not installed' in str(info.value)) == (
    'ale_py' in without
  )
