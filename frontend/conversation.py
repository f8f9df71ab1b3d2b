"""Requests to the frontend on a host, one JSON line each, and its replies (frontend/on_host.py)."""

import json

from frontend import on_host, plain_text, scripts
from frontend.host_error import LOST, HostError


class Conversation:
  """Talks to the frontend on one host; begins with the first request, and anew after a failure.

  Args:
    run: function of a script's text that starts it on the host (see `scripts.begin`).
    workdir: the folder with the code on that host.
    python: the interpreter there.
    made_by_push: whether that interpreter is one that `push` makes.
  """

  def __init__(self, run, workdir, python, made_by_push):
    self._run, self._workdir, self._python = run, workdir, python
    self._made_by_push = made_by_push
    self._script = None
    self._received = b''

  def ask(self, request, fields, timeout_secs):
    """Sends one request and returns its reply.

    Args:
      request: name of a function in on_host.REQUESTS.
      fields: dict of its arguments.
      timeout_secs: longest silence.

    Raises:
      HostError: no connection, no answer, or the host says why it could not.
    """
    if self._script is None:
      self._script = scripts.begin(self._run, scripts.TALK, self._workdir, self._python)
      self.ask('hello', {}, 60)
    try:
      self._script.channel.settimeout(timeout_secs)
      self._script.channel.sendall(json.dumps({'request': request, **fields}).encode() + b'\n')
      reply = self._read_reply()
    except TimeoutError:
      raise HostError('', f'no answer to {request!r} within {timeout_secs} s') from None
    except LOST:
      raise self._ended() from None
    if 'error' in reply:
      raise HostError('', reply['error'])
    return reply

  def _read_reply(self):
    mark = on_host.REPLY_MARK.encode()
    while True:
      line, newline, rest = self._received.partition(b'\n')
      if newline:
        self._received = rest
        if line.startswith(mark):
          return json.loads(line[len(mark) :])
      else:
        data = self._script.channel.recv(65536)
        if not data:
          raise self._ended()
        self._received += data

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
    reason = plain_text.printable(errors[-1]) if errors else f'it ended with {code}'
    return HostError('python', f'{self._python} cannot run {scripts.PROGRAM}: {reason}')

  def close(self):
    """Ends the conversation; the next request begins another."""
    if self._script is not None:
      self._script.close()
      self._script = None
      self._received = b''
