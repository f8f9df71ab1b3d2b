"""reporting.own_observers: who is refused, and that nobody waits for an observer or dies of it."""

import sys
import threading

import numpy as np
import pytest

from conftest import eventually
from reporting import own_observers
from runtime.process import BadInput

SOURCE = """
import typing

class Good:
  seen = []
  def on_start(self, start): self.seen.append(('start', start))
  def on_game(self, game): self.seen.append(('game', game))
  def on_end(self, end): self.seen.append(('end', end))
  def on_server(self): 'An `on_` of its own would be refused.'
  del on_server

class Nothing:
  def start(self): pass

class Typo:
  def on_strat(self, start): pass

class Bare:
  def on_game(self): pass

class Unmakable:
  def __init__(self): raise OSError('no key')
  def on_game(self, game): pass

class Leaves:
  def on_game(self, game): raise SystemExit(3)

some_function = lambda: None
"""


@pytest.fixture(autouse=True)
def mine(tmp_path, monkeypatch):
  """The modules `mine`, which has the classes above, and `broken`, which cannot be imported."""
  (tmp_path / 'mine.py').write_text(SOURCE)
  (tmp_path / 'broken.py').write_text('import json\n\nundefined\n')
  (tmp_path / 'leaving.py').write_text('import sys\nsys.exit("usage: leaving")\n')
  monkeypatch.syspath_prepend(str(tmp_path))
  for name in ('mine', 'broken', 'leaving'):
    monkeypatch.delitem(sys.modules, name, raising=False)


def observers(*names):
  return own_observers.Observers(own_observers.load(names))


@pytest.mark.parametrize('name, words', [
    ('mine', ['is not written module:Class']),
    ('mine:Goood', ['mine.py has no class Goood', 'did you mean mine:Good?']),
    ('mine:some_function', ['names a function', 'class']),
    ('nowhere.mine:Good', ["No module named 'nowhere'", 'folder that holds nowhere on PYTHONPATH']),
    ('learning.mine:Good', ['learning is a part of this project']),
    ('broken:Good', ['NameError (broken.py:3)', 'undefined']),
    ('leaving:Good', ['SystemExit (leaving.py:2): usage: leaving']),
    ('mine:Nothing', ['none of the methods', 'on_start', 'on_end']),
    ('mine:Typo', ['on_strat', 'never called', 'on_start']),
    ('mine:Bare', ['on_game', 'one argument']),
    ('mine:Unmakable', ['cannot be made: OSError (mine.py', 'no key']),
])  # fmt: skip
def test_what_is_no_observer_is_refused_in_a_sentence(name, words):
  with pytest.raises(BadInput) as refused:
    observers(name)
  (line,) = str(refused.value).splitlines()
  assert line.startswith(f'--observers: {name} ')
  for word in words:
    assert word in line


def test_events_arrive_in_order_as_plain_values_and_an_exit_is_no_exit():
  both, said = observers('mine:Leaves', 'mine:Good'), []
  both.report_to(said.append)
  both.start({'frames': np.int64(3)})
  both.start({'frames': 5})  # A chief that connects again.
  both.send('on_update', {})  # Which neither has.
  for i in range(3):
    both.send('on_game', {'return': np.float32(i), 'by': np.arange(2)})
  both.end({})
  both.end({})
  seen = sys.modules['mine'].Good.seen
  games = [('game', {'return': float(i), 'by': [0, 1]}) for i in range(3)]
  assert seen == [('start', {'frames': 3}), *games, ('end', {})]
  assert type(seen[0][1]['frames']) is int and type(seen[1][1]['return']) is float
  (line,) = said
  assert 'mine:Leaves raised SystemExit (mine.py:' in line and 'training goes on' in line


class Stuck:
  """Returns from its first event only when it is let go."""

  go, got = threading.Event(), []

  def on_update(self, update):
    self.go.wait()
    self.got.append(update['n'])

  def on_end(self, end):
    self.got.append('end')


def test_nobody_waits_for_a_slow_observer_and_it_is_said_what_it_missed(monkeypatch):
  monkeypatch.setattr(own_observers, '_MOST_WAITING', 10)
  monkeypatch.setattr(own_observers, '_LAST_SECS', 0.1)
  Stuck.go.clear()
  Stuck.got.clear()
  slow, said = own_observers.Observers({'x:Stuck': Stuck}), []
  slow.report_to(said.append)
  slow.start({})
  for n in range(100):
    slow.send('on_update', {'n': n})
  assert len(said) == 1 and 'slower than the run: 10 updates and games wait for it' in said[0]
  slow.end({})
  assert 'has not ended within 0 s' in said[1]
  assert 'did not get' in said[2]
  Stuck.go.set()
  eventually(lambda: Stuck.got[-1:] == ['end'], message=lambda: Stuck.got)
  assert Stuck.got[:10] == list(range(10)) and len(Stuck.got) <= 12
