"""Programs on one machine each get the processors that the others use least."""

import os
import subprocess
import sys

import pytest

from common import processor_shares


@pytest.mark.parametrize(
  'parts, others, expected',
  [
    (1, [], {0, 1, 2, 3, 4, 5, 6}),
    (2, [], {0, 1, 2}),
    (2, [{0, 1, 2}], {3, 4, 5, 6}),
    (3, [{0, 1}, {4, 5, 6}], {2, 3}),
    # Two programs hold a half each; the third shares with the one that has more processors.
    (7, [{0, 1, 2}, {3, 4, 5, 6}], {3}),
    # One that has ended says nothing.
    (2, [set(), {3, 4, 5, 6}], {0, 1, 2}),
    # More programs than processors.
    (9, [{n} for n in (0, 1, 2, 4, 5, 6)], {3}),
    (9, [{n} for n in range(7)] + [{0}, {2}], {1}),
  ],
)
def test_the_least_used_part(parts, others, expected):
  assert processor_shares.choose(range(7), parts, others) == expected


def test_without_processors_nothing_is_chosen():
  assert processor_shares.choose([], 2, [{0}]) == set()


def test_a_program_and_what_it_starts_keep_to_its_part():
  processors = processor_shares.usable()
  assert set(processors) == os.sched_getaffinity(0)
  program = 'import subprocess, sys; sys.stdin.read(); subprocess.run(sys.argv[1:], check=True)'
  child = 'import os; print(*os.sched_getaffinity(0))'
  process = subprocess.Popen(
    [sys.executable, '-c', program, sys.executable, '-c', child],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
  )
  part = set(processors[-1:])
  processor_shares.pin(process.pid, part)
  assert processor_shares.affinity(process.pid) == part
  assert {int(word) for word in process.communicate()[0].split()} == part
  assert processor_shares.affinity(process.pid) == set()
  processor_shares.pin(process.pid, part)  # Of a program that has ended: nothing.
