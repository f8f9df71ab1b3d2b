"""How busy the processors are: worked out by hand, and on this machine."""

import os
import time

import pytest

from runtime.processors import ProcessorUse

MINE = min(os.sched_getaffinity(0))
# user, nice, system, idle, iowait, irq, softirq, steal, guest, guest_nice.
BEFORE = (100, 0, 50, 1000, 10, 0, 5, 0, 7, 0)
AFTER = (130, 5, 60, 1040, 20, 1, 7, 12, 30, 0)


@pytest.fixture
def one_processor():
  """This process may run on one processor only."""
  allowed = os.sched_getaffinity(0)
  os.sched_setaffinity(0, {MINE})
  yield
  os.sched_setaffinity(0, allowed)


def write(path, *lines):
  path.write_text('\n'.join(' '.join(map(str, line)) for line in lines) + '\n')


def test_the_share_is_of_the_processors_that_the_process_may_use(tmp_path, one_processor):
  path = tmp_path / 'stat'
  other = f'cpu{MINE + 1}'
  write(path, ('cpu', *BEFORE), (f'cpu{MINE}', *BEFORE), (other, *BEFORE), ('intr', 1, 2), ())
  use = ProcessorUse(path, [])
  write(path, ('cpu', *AFTER), (f'cpu{MINE}', *AFTER), (other, *BEFORE), ('intr', 1, 2), ())
  # 40 idle and 10 waiting of 110 ticks; guests are counted in user.
  assert use.share() == pytest.approx(1 - 50 / 110)


def test_busy_is_what_was_neither_idle_nor_waiting_for_a_disk(tmp_path, one_processor):
  path = tmp_path / 'stat'
  write(path, (f'cpu{MINE}', 10, 0, 10, 100, 0, 0, 0, 0))
  use = ProcessorUse(path, [])
  write(path, (f'cpu{MINE}', 40, 0, 30, 140, 10, 0, 0, 0))
  assert use.share() == pytest.approx(0.5)


def test_the_share_is_of_the_time_since_the_last_call(tmp_path, one_processor):
  path = tmp_path / 'stat'
  write(path, (f'cpu{MINE}', 0, 0, 0, 0, 0, 0, 0, 0))
  use = ProcessorUse(path, [])
  write(path, (f'cpu{MINE}', 100, 0, 0, 0, 0, 0, 0, 0))
  assert use.share() == 1
  write(path, (f'cpu{MINE}', 100, 0, 0, 100, 0, 0, 0, 0))
  assert use.share() == 0
  assert use.share() is None  # No tick has passed.


def test_where_nobody_tells_nothing_is_said(tmp_path):
  assert ProcessorUse(tmp_path / 'none', []).share() is None


def test_a_busy_processor_of_this_machine_is_seen(one_processor):
  use = ProcessorUse()
  until = time.process_time() + 0.5
  while time.process_time() < until:
    pass
  assert use.share() > 0.8


def test_a_container_that_has_used_up_its_time_is_busy_on_an_idle_machine(tmp_path, one_processor):
  stat, limited = tmp_path / 'stat', tmp_path / 'cpu.stat'
  write(stat, (f'cpu{MINE}', 0, 0, 0, 0, 0, 0, 0, 0))
  write(limited, ('usage_usec', 5), ('nr_periods', 100), ('nr_throttled', 10))
  use = ProcessorUse(stat, [tmp_path / 'none', limited])
  write(stat, (f'cpu{MINE}', 10, 0, 0, 90, 0, 0, 0, 0))
  write(limited, ('usage_usec', 9), ('nr_periods', 150), ('nr_throttled', 58))
  assert use.share() == pytest.approx(48 / 50)
  write(stat, (f'cpu{MINE}', 80, 0, 0, 120, 0, 0, 0, 0))
  assert use.share() == pytest.approx(0.7)  # No period has passed since.
  write(limited, ('usage_usec', 9))  # No limit.
  write(stat, (f'cpu{MINE}', 90, 0, 0, 130, 0, 0, 0, 0))
  assert use.share() == pytest.approx(0.5)
