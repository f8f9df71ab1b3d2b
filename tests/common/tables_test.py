"""Seconds as words, numbers as a line of bars."""

import pytest

from common import tables


@pytest.mark.parametrize(
  'secs,text',
  [(None, '-'), (0, '0s'), (59.9, '59s'), (61, '1m 01s'), (3600, '1h 00m'), (90000, '1d 01h')],
)
def test_durations(secs, text):
  assert tables.duration(secs) == text


@pytest.mark.parametrize(
  'values,encoding,text',
  [
    ([3.0], 'utf-8', '▁'),
    ([2.0, 2.0], None, '▁▁'),
    ([-1.0, 6.0, 2.5, 0.0], 'utf-8', '▁█▅▂'),
    ([-1.0, 6.0, 0.0], 'latin-1', '_@.'),
  ],
)
def test_numbers_as_bars(values, encoding, text):
  assert tables.spark(values, encoding) == text
