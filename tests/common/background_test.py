"""Calls in the background: their results, their exceptions, limits."""

import threading

import pytest

from common import background


def test_results_come_in_order_and_the_first_exception_is_raised():
  assert background.on_each(lambda number: number * 2, [1, 2, 3]) == [2, 4, 6]
  with pytest.raises(ZeroDivisionError):
    background.on_each(lambda number: 1 // number, [1, 0, 2])


def test_a_call_that_does_not_return_is_left_alone_after_the_limit():
  released = threading.Event()
  with pytest.raises(TimeoutError, match='no answer within 0.05 s'):
    background.within(0.05, released.wait)
  call = background.BackgroundCall(released.wait)
  assert not call.has_ended(0.05)
  released.set()
  assert call.result() is True


def test_what_calls_put_is_streamed_until_all_have_ended():
  found = background.stream(lambda item, put: (put(item), put(item + 10)), [1, 2])
  assert sorted(found) == [1, 2, 11, 12]

  def failing(item, put):
    put(item)
    raise KeyError(item)

  stream = background.stream(failing, [1])
  assert next(stream) == 1
  with pytest.raises(KeyError):
    next(stream)
