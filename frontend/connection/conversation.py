"""Requests to the agent on a host (`frontend.host_side.agent`), one JSON line each; its replies."""

import json
import time

from common import texts
from frontend.connection import replies, scripts
from frontend.errors import LOST, HostError
from frontend.host_side import agent

# The longest that is read for one reply, with whatever a login script prints before it.
REPLY_BYTES = 8 << 20
HELLO_SECS = 60
# How long a script of this machine that did not answer in time has to end before it is killed.
LATE_SECS = 1


class Conversation:
  """Talks to the frontend on one host; begins with the first request, and anew after a failure.

  Whatever goes wrong in the middle of a request ends the conversation: a reply that comes late is
  never taken for the answer to the next request.

  Args:
    run: function of a script's text that starts it on the host (see `scripts.start`).
    workdir: the folder with the code on that host.
    python: the interpreter there.
    made_by_push: whether that interpreter is one that `push` makes.
  """

  def __init__(self, run, workdir, python, made_by_push):
    self._run, self._workdir, self._python = run, workdir, python
    self._made_by_push = made_by_push
    self._script = None
    self._received = bytearray()
    self._asked, self._numbered = 0, False

  def ask(self, request, fields, timeout_secs):
    """Sends one request and returns its reply.

    Args:
      request: name of a function in `agent.REQUESTS`.
      fields: dict of its arguments.
      timeout_secs: how long the whole reply may take.

    Raises:
      HostError: no connection, no answer, an answer of another shape than `replies` says, or
        the host says why it could not.
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
    except BaseException:  # Ctrl-C, too, may leave a reply under way.
      self.close(at_once=True)
      raise
    reply = replies.checked(request, reply)
    if request == 'hello':
      self._numbered = reply.pop('numbered', False)
    return reply

  def _exchange(self, request, fields, deadline):
    self._asked += 1
    # What came before was asked for by nobody.
    self._received.clear()
    number = {'number': self._asked} if self._numbered else {}
    line = json.dumps({'request': request, **number, **fields}).encode() + b'\n'
    while line:
      self._limit(deadline)
      line = line[self._script.channel.send(line) :]
    left = REPLY_BYTES
    while True:
      reply, left = self._read_reply(request, deadline, left)
      if not self._numbered:
        return reply
      if isinstance(reply, dict) and reply.pop('number', None) == self._asked:
        return reply

  def _limit(self, deadline):
    left = deadline - time.monotonic()
    if left <= 0:
      raise TimeoutError
    self._script.channel.settimeout(left)

  def _read_reply(self, request, deadline, left):
    """(the next reply, how many bytes may follow)."""
    mark = agent.REPLY_MARK.encode()
    while True:
      line, left = self._read_line(deadline, left)
      # A login script may have left off in the middle of a line.
      _, found, text = line.partition(mark)
      if found:
        try:
          return json.loads(text), left
        except (ValueError, RecursionError):
          self.close()
          raise HostError('', f'its answer to {request!r} cannot be read') from None

  def _read_line(self, deadline, left):
    searched = 0
    while (at := self._received.find(b'\n', searched)) < 0:
      searched = len(self._received)
      self._limit(deadline)
      data = self._script.channel.recv(65536)
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

  def _ended(self):
    code, errors = self._script.exit_code(), self._script.errors().strip().splitlines()
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

  def close(self, at_once=False):
    """Ends the conversation; the next request begins another.

    Args:
      at_once: whether not to wait until the other side has ended.
    """
    self._drop(None if at_once else scripts.CONNECT_SECS)

  def _drop(self, wait_secs):
    script, self._script = self._script, None
    self._received.clear()
    self._numbered = False
    if script is not None:
      script.close(wait_secs)
