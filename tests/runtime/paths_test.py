"""runtime.paths: what people write in flags becomes a path of this machine, or one sentence."""

import os
import pwd

import pytest

from runtime.paths import local
from runtime.process import BadInput


@pytest.mark.parametrize('text, path', [
  ('', ''),
  ('runs/a', 'runs/a'),
  ('~/runs/x', '/h/me/runs/x'),
  ('~', '/h/me'),
  ('$HOME/runs', '/h/me/runs'),
  ('${HOME}/${WHO}s/$WHO', '/h/me/seeds/seed'),
  ('runs/a~b', 'runs/a~b'),
  ('runs/costs$5', 'runs/costs$5'),
  ('./~/x', './~/x'),
  ('/a b/c:best', '/a b/c:best'),
])  # fmt: skip
def test_what_stands_for_a_folder_is_that_folder(text, path, monkeypatch):
  monkeypatch.setenv('HOME', '/h/me')
  monkeypatch.setenv('WHO', 'seed')
  assert local('--logdir', text) == path


def test_the_home_of_another_user():
  user = pwd.getpwuid(os.getuid())
  assert local('--logdir', f'~{user.pw_name}/runs') == os.path.join(user.pw_dir, 'runs')


@pytest.mark.parametrize('text, words', [
  ('gs://bucket/run', 'gs:// is no folder of this machine'),
  ('s3://bucket/run:best', 's3:// is no folder'),
  ('hdfs://host:9000/run', 'hdfs:// is no folder'),
  ('file:///tmp/run', 'file:// is no folder'),
  ('$NO_SUCH_VARIABLE/run', 'there is no environment variable NO_SUCH_VARIABLE'),
  ('runs/${NOR_THIS}', 'there is no environment variable NOR_THIS'),
  ('~no-such-user/run', 'no home of no-such-user is known here'),
  ('runs/lr[0.1]', "no path with '[' in it"),
  ('runs/*', "no path with '*' in it"),
  ('runs/which?', "no path with '?' in it"),
  ('runs/a\nb', 'no path with'),
])  # fmt: skip
def test_what_is_no_folder_is_refused_in_one_sentence(text, words):
  with pytest.raises(BadInput) as refused:
    local('--init_from', text)
  assert words in str(refused.value) and str(refused.value).startswith(f'--init_from={text}: ')
