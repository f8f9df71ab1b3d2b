"""envs.level_ids: which imports registered no environment."""

import importlib
import os
import subprocess
import sys

import gymnasium
import pytest

from envs import level_ids
from structs import Level

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
NOTHING = 'registered no environment; if one of its modules or functions does, name that: --import='
MODULES = {
  'of_another': "import gymnasium\ngymnasium.register('Right-v0', 'counting_env:Counting')",
  'of_gym': "import gym\ngym.register('Right-v0', 'counting_env:Counting')",
  'of_no_one': '',
  'imports_gym': 'import gym',
  'by_function': 'def register():\n  import of_another\ndef nothing():\n  pass',
}


@pytest.fixture(autouse=True)
def modules(tmp_path, monkeypatch):
  """Modules of a user's, which nobody has imported yet, and what they register forgotten after."""
  for name, text in MODULES.items():
    (tmp_path / f'{name}.py').write_text(text)
  monkeypatch.syspath_prepend(tmp_path)
  monkeypatch.setattr(level_ids, '_may_have_registered', {})
  yield tmp_path
  for name in MODULES:
    sys.modules.pop(name, None)
  for registry in (gymnasium.registry, level_ids._openai_gym().envs.registry):
    registry.pop('Right-v0', None)


def said(imports, env_id='Rihgt-v0'):
  with pytest.raises(ValueError, match='is known to neither Gymnasium nor OpenAI Gym') as info:
    level_ids.make(Level(env_id, imports=imports))
  return str(info.value)


@pytest.mark.parametrize(
  'imports', ['of_another', 'of_gym', 'by_function:register', 'of_no_one,of_another']
)
def test_what_registered_an_environment_is_not_blamed(imports):
  for _ in range(2):  # Nothing is imported the second time.
    sentence = said(imports)
    assert 'registered no environment' not in sentence and 'the closest are Right-v0' in sentence


@pytest.mark.parametrize('imports', ['of_no_one', 'imports_gym', 'by_function:nothing'])
def test_what_registered_none_is_named(imports):
  for _ in range(2):
    assert f'OpenAI Gym; importing {imports} {NOTHING}PACKAGE.MODULE or ' in said(imports)


def test_the_module_of_an_id_is_named():
  assert f'importing of_no_one {NOTHING}' in said('', 'of_no_one:Rihgt-v0')
  assert 'registered no environment' not in said('', 'of_another:Rihgt-v0')


def test_several_that_registered_none_are_named():
  sentence = said('by_function,by_function:nothing', 'of_no_one:Rihgt-v0')
  names = 'of_no_one and by_function and by_function:nothing'
  assert f'importing {names} registered no environment; if one of their modules' in sentence


def test_what_was_imported_before_is_not_blamed():
  importlib.import_module('of_another')
  importlib.import_module('of_no_one')
  assert 'registered no environment' not in said('of_another')
  assert 'registered no environment' not in said('of_no_one')


def test_what_openai_gym_registers_on_import_does_not_count(modules):
  code = (
    'from envs import level_ids\nfrom structs import Level\n'
    "try: level_ids.make(Level('Rihgt-v0', imports='imports_gym'))\n"
    'except ValueError as error: print(error)'
  )
  path = os.pathsep.join([ROOT, str(modules)])
  done = subprocess.run(
    [sys.executable, '-c', code], env={**os.environ, 'PYTHONPATH': path}, cwd=modules,
    capture_output=True, text=True,
  )  # fmt: skip
  assert f'importing imports_gym {NOTHING}' in done.stdout, done.stderr
