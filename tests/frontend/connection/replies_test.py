"""Replies that come late, twice, without end, or do not fit their schema."""

import json

import pytest

import conftest
from frontend.connection import conversation, replies
from frontend.errors import HostError
from frontend.host_side import agent
from scripted_host import scripted_fixture  # noqa: F401

NO_TASKS = '@impala {"tasks": []}\n'


def test_every_request_has_a_shape():
  assert set(replies.SCHEMAS) == set(agent.REQUESTS)


@pytest.mark.parametrize('numbered', [True, False], ids=['code of now', 'code of before'])
def test_a_late_reply_is_thrown_away(scripted, monkeypatch, numbered):
  monkeypatch.setattr(conversation, 'LATE_SECS', 0.1)
  one, host = scripted()
  one.says('hello', **({'numbered': True} if numbered else {}))
  one.says('has_session', there=True)
  one.says('running', tasks=['late'])
  assert host.ask('has_session')['there'] is True
  one.write('silent')
  with pytest.raises(HostError, match="no answer to 'running' within 0.5 s"):
    host.ask('running', timeout_secs=0.5)
  one.remove('silent')
  for _ in range(3):
    assert host.ask('has_session')['there'] is True


def test_a_reply_to_nothing_is_thrown_away(scripted):
  one, host = scripted()
  one.says('running', tasks=['true'])
  one.write('unlisten.raw', '@impala {"number": 2}\n' + 3 * '@impala {"tasks": ["lie"]}\n')
  host.ask('unlisten')
  for _ in range(4):
    assert host.ask('running')['tasks'] == ['true']


def test_a_login_script_that_ends_in_the_middle_of_a_line(scripted):
  one, host = scripted()
  one.write('hello.raw', 'Welcome!\nquota 12% > @impala {"python": "p"}\n')
  assert host.ask('hello') == {'python': 'p'}


ENDLESS = """
import sys, time
sys.stdin.readline()
print('@impala {}', flush=True)
sys.stdin.readline()
while True:
  sys.stdout.write(%s)
  sys.stdout.flush()
  time.sleep(%s)
"""


@pytest.mark.parametrize(
  'what, pause, sentence',
  [
    ("'x' * 65536", 0, 'it sent more than 1 MB for a short answer'),
    ("'line' * 1000 + chr(10)", 0, 'it sent more than 1 MB for a short answer'),
    ("'x'", 0.02, "no answer to 'running' within 1 s"),
    ("'@impala '", 0.02, "no answer to 'running' within 1 s"),
  ],
)
def test_what_comes_without_end(scripted, monkeypatch, what, pause, sentence):
  monkeypatch.setattr(conversation, 'REPLY_BYTES', 1 << 20)
  one, host = scripted()
  one.write('run_experiment_mm_raw.py', ENDLESS % (what, pause))
  with pytest.raises(HostError) as caught:
    host.ask('running', timeout_secs=1 if pause else 60)
  assert str(caught.value) == sentence


GOOD_ROW = {'task': 'ps-0', 'state': 'running', 'uptime_secs': 3.5, 'restarts': 0, 'last_line': ''}


@pytest.mark.parametrize(
  'request_name, reply, where',
  [
    ('status', {}, 'no tasks'),
    ('status', {'tasks': {'ps-0': 'running'}}, 'tasks: not a list'),
    ('status', {'tasks': [GOOD_ROW | {'uptime_secs': 'long'}]}, 'uptime_secs: not a number'),
    ('status', {'tasks': [GOOD_ROW | {'restarts': 2.5}]}, 'restarts: not a whole number'),
    ('status', {'tasks': [GOOD_ROW | {'training': [1]}]}, 'training: not an object'),
    (
      'status',
      {'tasks': [GOOD_ROW | {'training': {'mean_return_100': 1}}]},
      'no environment_frames',
    ),
    ('status', {'tasks': [GOOD_ROW | {'last_seen_secs': True}]}, 'not a number'),
    ('logs', {'lines': [['x']], 'offset': 1}, 'lines: not a string'),
    ('logs', {'lines': [], 'offset': 1 << 70}, 'offset: not a whole number'),
    ('hold', {'launched': 'no'}, 'launched: not true or false'),
    ('logdir', {'logdir': ['x']}, 'logdir: not a string'),
    ('logdir', {'logdir': 'a\0b'}, 'logdir: not a path'),
    ('has_session', [True], 'not an object'),
    ('ask', 'yes', 'not an object'),
    ('check', {'items': {'code': True}, 'versions': {}}, 'items: not a pair'),
  ],
)
def test_a_reply_of_another_shape(request_name, reply, where):
  with pytest.raises(HostError, match=f'its answer to {request_name!r} is not .*{where}'):
    replies.checked(request_name, reply)


@pytest.mark.parametrize('text', ['{"there": tru}', '[' * 100_000, '1' * 5000, '\xff', ''])
def test_a_reply_that_cannot_be_read(scripted, text):
  one, host = scripted()
  one.write('has_session.raw', f'@impala {text}\n')
  one.says('hello')
  with pytest.raises(HostError, match="its answer to 'has_session' (cannot be read|is not what)"):
    host.ask('has_session')
  one.says('has_session', there=False)
  one.remove('has_session.raw')
  assert host.ask('has_session') == {'there': False}


def test_strings_come_out_clean():
  row = replies.checked(
    'status', {'tasks': [GOOD_ROW | {'last_line': 'a\x1b[2J\nb', 'new': '\x9bx'}]}
  )
  assert (row['tasks'][0]['last_line'], row['tasks'][0]['new']) == ('a[2J b', 'x')
  row = replies.checked('firewall_state', {'good': False, 'text': 'a\n\x1bb', 'new': 'a\n\x1bb'})
  assert (row['text'], row['new']) == ('a b', 'a\nb')
  row = replies.checked(
    'status', json.loads('{"tasks": [{"task": "a", "state": "b", "uptime_secs": NaN}]}')
  )
  assert row['tasks'][0]['uptime_secs'] is None
  with pytest.raises(HostError, match='^no such luck$'):
    replies.checked('status', {'error': 'no \x07such luck'})


def test_addresses_are_addresses():
  """They become lines of a table that root reads."""
  good = {'found': {'b': ['10.0.0.2'], 'c': 'no such\x1b host'}, 'own': ['fd00::1'], 'user_id': 7}
  reply = replies.checked('addresses', good | {'ssh_port': None})
  assert reply['found'] == {'b': ['10.0.0.2'], 'c': 'no such host'}
  for lie in (
    {'own': ['10.0.0.0/0']},
    {'found': {'b': ['10.0.0.2 } accept; }']}},
    {'user_id': '0'},
    {'found': ['b']},
  ):
    with pytest.raises(HostError, match='is not what was asked for'):
      replies.checked('addresses', good | {'ssh_port': None} | lie)


def test_an_interrupted_request_leaves_no_reply_behind(scripted, monkeypatch):
  one, host = scripted()
  one.says('running', tasks=['late'])
  one.says('has_session', there=True)
  host.ask('has_session')
  one.write('silent')

  def interrupt(*_):
    conftest.eventually(lambda: 'running' in one.asked())
    raise KeyboardInterrupt

  monkeypatch.setattr(conversation.Conversation, '_read_reply', interrupt)
  with pytest.raises(KeyboardInterrupt):
    host.ask('running')
  monkeypatch.undo()
  one.remove('silent')
  assert host.ask('has_session')['there'] is True
