"""common.keywords: what the flags for keywords, wrappers and imports hold."""

import pytest

from common import keywords


def test_keywords_are_a_json_object_and_a_list_becomes_a_tuple():
  text = ' {"map": ["SF", "HG"], "config": {"shape": [1, 2]}, "p": 0.5, "slippery": false} '
  assert keywords.keywords_of(text) == dict(
    map=('SF', 'HG'), config={'shape': [1, 2]}, p=0.5, slippery=False
  )
  assert keywords.keywords_of('') == keywords.keywords_of('{}') == {}


def test_wrappers_have_commas_and_colons_in_their_keywords_too():
  text = 'a.B, a.b.C:{"words": "x,y:{", "size": [84, 84]},d.e'
  assert keywords.wrappers_of(text) == [
    ('a.B', {}), ('a.b.C', {'words': 'x,y:{', 'size': (84, 84)}), ('d.e', {})
  ]  # fmt: skip
  assert keywords.wrappers_of('') == []


def test_imports_are_modules_and_functions():
  assert keywords.imports_of('minigrid, minatar.gym:register_envs') == [
    ('minigrid', ''), ('minatar.gym', 'register_envs')
  ]  # fmt: skip


@pytest.mark.parametrize('canonical, spellings', [
  (keywords.canonical_keywords, ('{"a": 1, "b": [2]}', '{"b":[2],"a":1}')),
  (keywords.canonical_wrappers, ('a.B:{"x": 1, "y": 2},c.D', ' a.B:{"y":2,"x":1} , c.D')),
  (keywords.canonical_imports, ('a,b.c:f', ' a, b.c:f ,')),
  (keywords.canonical_keywords, ('', '{}', ' ')),
])  # fmt: skip
def test_every_spelling_becomes_the_first(canonical, spellings):
  assert {canonical(text) for text in spellings} == {spellings[0]}


@pytest.mark.parametrize('read, text, words', [
  (keywords.keywords_of, 'slippery=false', 'JSON object such as {"is_slippery": false}: Expecting'),
  (keywords.keywords_of, '[1]', "'[1]' is none"),
  (keywords.keywords_of, '{"a b": 1}', "'a b' is no name"),
  (keywords.keywords_of, '{"a": 1}, {"b": 2}', "', {\"b\": 2}' follows it"),
  (keywords.keywords_of, '{"a": ' + '[' * 100_000, 'nested too deeply'),
  (keywords.wrappers_of, 'Wrapper', "'Wrapper' is no dotted path"),
  (keywords.wrappers_of, 'a.B,,c.D', "',c.D' is no dotted path"),
  (keywords.wrappers_of, 'a.B c.D', "'c.D' follows a.B"),
  (keywords.wrappers_of, 'a.B:3', 'a.B: is no JSON object'),
  (keywords.wrappers_of, 'a.B:{"x": }', 'a.B: is no JSON object'),
  (keywords.imports_of, 'a.py b', "'a.py b'"),
  (keywords.imports_of, 'a:f:g', "'a:f:g'"),
  (keywords.imports_of, 'a:', "'a:'"),
])  # fmt: skip
def test_what_is_none_of_these_is_refused_in_a_sentence(read, text, words):
  with pytest.raises(ValueError) as info:
    read(text)
  assert str(info.value).startswith('not ') and words in str(info.value)
  assert '\n' not in str(info.value)
