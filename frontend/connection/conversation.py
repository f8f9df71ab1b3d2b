"""Requests to the agent on a host (frontend/host_side/agent.py) and its replies, as JSON lines."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from common import texts
from frontend.connection import replies, scripts
from frontend.errors import LOST, HostError
from frontend.host_side import agent

# Most bytes that are read for one reply, with the output of login scripts before it.
REPLY_BYTES = 8 << 20
HELLO_SECS = 60
# After a timeout, a script on this machine is killed if it does not end within this time.
LATE_SECS = 1


class Conversation:
  """Talks to the agent on one host; starts it for the first request, and again after a failure.

  Any failure during a request ends the conversation, so a late reply is never taken for the answer
  to the next request.

  Args:
    run: starts a script, given its text, on the host.
    workdir: the folder with the code on the host.
    python: the interpreter on the host.
    made_by_push: whether `push` makes this interpreter.
  """

  def __init__(
    self, run: Callable[[str], scripts.Script], workdir: str, python: str, made_by_push: bool
  ) -> None:
    self._run, self._workdir, self._python = run, workdir, python
    self._made_by_push = made_by_push
    self._script: scripts.Script | None = None
    self._received = bytearray()
    self._asked, self._numbered = 0, False

  def ask(self, request: str, fields: dict[str, Any], timeout_secs: float) -> dict[str, Any]:
    """Sends one request and returns its reply.

    Args:
      request: name of a function in `agent.REQUESTS`.
      fields: its arguments.
      timeout_secs: limit for the whole reply.

    Raises:
      HostError: there is no connection or no reply, the reply does not have the form that
        `replies` demands, or the request failed on the host.
    """
    if self._script is None:
      self._script = scripts.start(self._run, scripts.RUN_AGENT, self._workdir, self._python)
      self.ask('hello', {}, HELLO_SECS)
    try:
      reply = self._exchange(request, fields, time.monotonic() + timeout_secs)
    except TimeoutError:
      self._drop(LATE_SECS)
      raise HostError('', f'no answer to {request!r} within {timeout_secs} s') from None
    except LOST:
      raise self._ended() from None
    except BaseException:  # After Ctrl-C, too, a reply may still arrive.
      self.close(at_once=True)
      raise
    reply = replies.checked(request, reply)
    if request == 'hello':
      self._numbered = reply.pop('numbered', False)
    return reply

  def _exchange(self, request: str, fields: dict[str, Any], deadline: float) -> dict[str, Any]:
    script = self._started()
    self._asked += 1
    # Nothing was asked before, so what has arrived is not a reply.
    self._received.clear()
    number = {'number': self._asked} if self._numbered else {}
    line = json.dumps({'request': request, **number, **fields}).encode() + b'\n'
    while line:
      _set_timeout(script, deadline)
      line = line[script.channel.send(line) :]
    left = REPLY_BYTES
    while True:
      reply, left = self._read_reply(request, deadline, left)
      if not self._numbered:
        return reply
      if isinstance(reply, dict) and reply.pop('number', None) == self._asked:
        return reply

  def _started(self) -> scripts.Script:
    if self._script is None:
      raise EOFError
    return self._script

  def _read_reply(self, request: str, deadline: float, left: int) -> tuple[Any, int]:
    """Returns (the next reply, how many more bytes may be read)."""
    mark = agent.REPLY_MARK.encode()
    while True:
      line, left = self._read_line(deadline, left)
      # Output of a login script may come before it in the same line.
      _, found, text = line.partition(mark)
      if found:
        try:
          return json.loads(text), left
        except (ValueError, RecursionError):
          self.close()
          raise HostError('', f'its answer to {request!r} cannot be read') from None

  def _read_line(self, deadline: float, left: int) -> tuple[bytes, int]:
    script = self._started()
    searched = 0
    while (at := self._received.find(b'\n', searched)) < 0:
      searched = len(self._received)
      _set_timeout(script, deadline)
      data = script.channel.recv(65536)
      if not data:
        raise EOFError
      left -= len(data)
      if left < 0:
        self.close()
        raise HostError('', f'it sent more than {REPLY_BYTES >> 20} MB for a short answer')
      self._received += data
    line = bytes(self._received[:at])
    del self._received[: at + 1]
    return line, left

  def _ended(self) -> HostError:
    """Ends the conversation; returns why the agent has ended, or could not be started."""
    script = self._script
    if script is None:  # Another thread has closed the conversation.
      return HostError('', 'the connection was lost')
    code, errors = script.exit_code(), script.errors().strip().splitlines()
    self.close()
    if code in (None, -1):  # -1: the channel closed without an exit status.
      return HostError('', 'the connection was lost')
    if code == 91:
      return HostError('workdir', f'there is no folder {self._workdir}; --action=push makes it')
    if code == 92:
      hint = '; --action=push makes it' if self._made_by_push else ''
      return HostError('python', f'there is no program {self._python}{hint}')
    if code == 93:
      return HostError(
        'workdir', f'{self._workdir} does not hold {scripts.PROGRAM}; --action=push copies it'
      )
    reason = texts.printable(errors[-1]) if errors else f'it ended with {code}'
    return HostError('python', f'{self._python} cannot run {scripts.PROGRAM}: {reason}')

  def close(self, at_once: bool = False) -> None:
    """Ends the conversation; the next request starts another.

    Args:
      at_once: whether not to wait until the agent has ended.
    """
    self._drop(None if at_once else scripts.CONNECT_SECS)

  def _drop(self, wait_secs: float | None) -> None:
    script, self._script = self._script, None
    self._received.clear()
    self._numbered = False
    if script is not None:
      script.close(wait_secs)


def _set_timeout(script: scripts.Script, deadline: float) -> None:
  """Limits the next call on the script's channel; raises TimeoutError after the deadline."""
  left = deadline - time.monotonic()
  if left <= 0:
    raise TimeoutError
  script.channel.settimeout(left)
