"""Seconds as words."""

import pytest

from frontend import tables


@pytest.mark.parametrize(
  'secs,text',
  [(None, '-'), (0, '0s'), (59.9, '59s'), (61, '1m 01s'), (3600, '1h 00m'), (90000, '1d 01h')],
)
def test_durations(secs, text):
  assert tables.duration(secs) == text
