"""Windows in a real tmux on its own socket."""

import os
import sys

import pytest

import conftest
from frontend.host_side import tmux
from frontend_fixtures import own_tmux  # noqa: F401

eventually = conftest.eventually


def sleeper(text):
  """A command that prints its arguments and stays."""
  return [sys.executable, '-c', 'import sys, time; print(sys.argv[1:]); time.sleep(600)', text]


def windows(server, session):
  return server('list-windows', '-t', f'={session}:', '-F', '#{window_name}').split()


def screen(server, session, window):
  """What a window shows and has scrolled away, without the line breaks that its width makes."""
  return server('capture-pane', '-p', '-J', '-S', '-', '-t', f'={session}:={window}')


def test_one_window_for_each_command(own_tmux):  # noqa: F811
  tmux.start_windows(own_tmux.path, 'imp', [('ps-0', sleeper('a')), ('actor-3', sleeper('b'))])
  assert own_tmux.sessions() == ['imp']
  assert windows(own_tmux, 'imp') == ['ps-0', 'actor-3']
  eventually(lambda: "['b']" in screen(own_tmux, 'imp', 'actor-3'))


def test_a_window_stays_when_its_command_ends(own_tmux):  # noqa: F811
  # Not asked: the exit status. tmux 3.3a now and then misses a signal and does not know it.
  command = [sys.executable, '-c', 'print("last words"); raise SystemExit(3)']
  tmux.start_windows(own_tmux.path, 'imp', [('ps-0', command)])
  dead = ['display-message', '-p', '-t', '=imp:=ps-0', '#{pane_dead}']
  eventually(lambda: own_tmux(*dead).strip() == '1')
  assert 'last words' in screen(own_tmux, 'imp', 'ps-0')


def test_a_session_that_did_not_come_up_whole_is_ended_and_another_is_left_alone(own_tmux):  # noqa: F811
  # As the first window comes up and takes its session's options, the second has no name for tmux.
  with pytest.raises(RuntimeError, match='tmux: '):
    tmux.start_windows(own_tmux.path, 'imp', [('a:b.c', sleeper('a')), ('ps-1', sleeper('b'))])
  assert own_tmux.sessions() == []
  tmux.start_windows(own_tmux.path, 'imp', [('ps-0', sleeper('a'))])
  with pytest.raises(RuntimeError, match='duplicate session'):
    tmux.start_windows(own_tmux.path, 'imp', [('ps-0', sleeper('b'))])
  assert own_tmux.sessions() == ['imp'] and tmux.is_used(own_tmux.path, 'imp')
  assert not tmux.is_used(own_tmux.path, 'im')


def test_names_are_exact(own_tmux):  # noqa: F811
  own_tmux('new-session', '-d', '-s', 'imp-2', *sleeper('stranger'))
  own_tmux('new-session', '-d', '-s', 'im', *sleeper('stranger'))
  assert not tmux.has_session(own_tmux.path, 'imp')
  tmux.end_session(own_tmux.path, 'imp')
  tmux.start_windows(own_tmux.path, 'imp', [('ps-1', sleeper('a')), ('ps-10', sleeper('b'))])
  assert tmux.has_session(own_tmux.path, 'imp')
  tmux.end_session(own_tmux.path, 'imp')
  assert sorted(own_tmux.sessions()) == ['im', 'imp-2']


def test_a_start_that_fails_leaves_no_session(own_tmux):  # noqa: F811
  """tmux makes the window of this name and does not find it by it."""
  for names in (['a.b'], ['ps-0', 'a.b']):
    with pytest.raises(RuntimeError, match='tmux: '):
      tmux.start_windows(own_tmux.path, 'imp', [(name, sleeper('x')) for name in names])
    assert own_tmux.sessions() == []


def test_a_session_that_exists_is_refused(own_tmux):  # noqa: F811
  tmux.start_windows(own_tmux.path, 'imp', [('ps-0', sleeper('a'))])
  with pytest.raises(RuntimeError, match='duplicate session: imp'):
    tmux.start_windows(own_tmux.path, 'imp', [('ps-0', sleeper('a'))])


@pytest.mark.parametrize(
  'text', ['$(touch x)', '`touch x`', '; touch x', 'a;', ';', '"\'\n', '#(touch x)']
)
def test_arguments_arrive_as_they_are(own_tmux, tmp_path, monkeypatch, text):  # noqa: F811
  monkeypatch.chdir(tmp_path)
  tmux.start_windows(own_tmux.path, 'imp', [('ps-0', sleeper(text)), ('ps-1', sleeper(text))])
  for window in ('ps-0', 'ps-1'):
    eventually(lambda: str([text]) in screen(own_tmux, 'imp', window), 20)  # noqa: B023
  assert os.listdir(tmp_path) == []


def test_socket_names_and_paths():
  assert tmux.attach_arguments('', 's', 'ps-0') == ['tmux', 'attach-session', '-t', '=s:=ps-0']
  assert tmux.socket_arguments('name') == ['-L', 'name']
  assert tmux.socket_arguments('/a/b') == ['-S', '/a/b']
