"""Signals that arrive before a program has installed handlers of its own."""

import signal
from types import FrameType

# Whether a signal interrupts the program. Set it to False before the program says why it ends. An
# assignment is atomic, whereas a call that removes the handlers could itself be interrupted.
interrupting = True


def end_at_once() -> None:
  """Makes SIGINT end the process without a traceback, while modules are imported."""
  if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def install() -> None:
  """Makes SIGINT, SIGTERM and SIGHUP raise KeyboardInterrupt, with the signal as its argument.

  A signal that the parent process ignores, as with nohup(1), stays ignored.
  """
  for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    if signal.getsignal(number) != signal.SIG_IGN:
      signal.signal(number, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
  del frame
  if interrupting:
    raise KeyboardInterrupt(signal.Signals(number))
