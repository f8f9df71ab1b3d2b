"""`tensorboard`: TensorBoard on the chief's host, at a port of this machine, until Ctrl-C."""

import time
from typing import Any

from common import texts
from frontend.actions import pull
from frontend.console import POLL_SECS, AnyHost, Console
from frontend.errors import HostError
from frontend.host_side import tensorboard

# TensorBoard imports TensorFlow if it can, which takes seconds, on a busy machine minutes.
START_SECS = 240
# Well below the time without a request after which the host ends TensorBoard.
ASK_EVERY_SECS = 2.0
ANSWER_SECS = 30
END_SECS = 10


def run(console: Console) -> int:
  """Shows the run until Ctrl-C, which is its normal end; returns the exit code.

  Raises:
    UserError: the session has no run on the chief's host.
    HostError: TensorBoard does not start or ends, or the connection is lost.
  """
  chief = console.host_of('learner-0')
  logdir = pull.run_folder(console, chief)
  console.say(f'starting TensorBoard on {chief.name}')
  started = chief.ask('start_tensorboard', logdir=logdir)
  try:
    with chief.tunnel(_wait_for_port(chief)) as port:
      console.say(
        f'http://127.0.0.1:{port}/ shows {texts.printable(logdir)} of {chief.name} until Ctrl-C'
      )
      while True:
        time.sleep(ASK_EVERY_SECS)
        _ask(chief)
  except KeyboardInterrupt:
    console.say()
    return 0
  finally:
    _end(console, chief, started)


def _ask(chief: AnyHost) -> dict[str, Any]:
  state = chief.ask('tensorboard', ANSWER_SECS)
  if not state['running']:
    last = texts.printable(state['last_line'])
    raise HostError('', f'TensorBoard ended on {chief.name}: {last}')
  return state


def _wait_for_port(chief: AnyHost) -> int:
  deadline = time.monotonic() + START_SECS
  while (port := _ask(chief)['port']) is None:
    if time.monotonic() > deadline:
      raise HostError('', f'TensorBoard did not start on {chief.name} within {START_SECS} s')
    time.sleep(POLL_SECS)
  return port


def _end(console: Console, chief: AnyHost, started: dict[str, Any]) -> None:
  """Ends TensorBoard; in a new conversation, as Ctrl-C may have cut a reply of the old one."""
  chief.end_conversation(at_once=True)
  try:
    gone = chief.ask('end_tensorboard', END_SECS, **started)['gone']
    if not gone:
      console.say(f'TensorBoard did not end on {chief.name}: process {started["pid"]}')
  except HostError as error:
    console.say(
      f'{chief.name}: {error}; TensorBoard ends there by itself within {tensorboard.ASK_SECS:.0f} s'
    )
