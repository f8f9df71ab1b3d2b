"""An SFTP server that lies; written by hand, because no library would send such answers.

python lying_sftp.py LIE       speaks SFTP on standard input and output, as a subsystem of sshd
"""

import itertools
import struct
import sys

INIT, VERSION, OPEN, CLOSE, READ, FSTAT, OPENDIR, READDIR, STAT = 1, 2, 3, 4, 5, 8, 11, 12, 17
STATUS, HANDLE, DATA, NAME, ATTRS = 101, 102, 103, 104, 105
OK, EOF, NO_FILE = 0, 1, 2
FILE, FOLDER, LINK, DEVICE = 0o100644, 0o40755, 0o120777, 0o20666
PETABYTE = 10**15

RUN = {
  'run.json': b'{"starts": [{"settings": {"level_name": "run 1"}}]}',
  'metrics.csv': b'a,b\n1,2\n',
  'checkpoint': b'model_checkpoint_path: "model.ckpt-5"\n',
  'checkpoints.json': b'{"best": "model.ckpt-5", "checkpoints": []}',
  'model.ckpt-5.index': b'index',
  'model.ckpt-5.data-00000-of-00001': b'weights',
}


def string(data):
  data = data if isinstance(data, bytes) else data.encode()
  return struct.pack('>I', len(data)) + data


def attributes(size, mode=FILE, mtime=1_700_000_000):
  return struct.pack('>IQIII', 1 | 4 | 8, size, mode, mtime, mtime)


class Liar:
  """Answers requests; by itself it does not lie.

  Args:
    read: function of a number of bytes.
    write: function of bytes.
  """

  def __init__(self, read, write):
    self._read, self._write = read, write
    self.files = dict(RUN)
    self.listed = {}  # Names that are listed beside the files, with their attributes.
    self._handles = {}
    self._numbers = itertools.count()

  def serve(self):
    """Answers requests until the input ends."""
    while head := self._read(4):
      packet = self._read(struct.unpack('>I', head)[0])
      kind, rest = packet[0], packet[1:]
      if kind == INIT:
        self.send(VERSION, struct.pack('>I', 3))
      else:
        number, rest = rest[:4], rest[4:]
        self.answer(kind, number, rest)

  def send(self, kind, data):
    self._write(struct.pack('>I', 1 + len(data)) + bytes([kind]) + data)

  def status(self, number, code, text=b'x'):
    self.send(STATUS, number + struct.pack('>I', code) + string(text) + string(''))

  def answer(self, kind, number, rest):
    argument = rest[4 : 4 + struct.unpack('>I', rest[:4])[0]]
    if kind == OPEN:
      name = argument.decode().rpartition('/')[2]
      if name not in self.files:
        return self.status(number, NO_FILE)
      return self._send_handle(number, name)
    if kind == OPENDIR:
      return self._send_handle(number, None)
    if kind == READ:
      offset, length = struct.unpack('>QI', rest[4 + len(argument) :])
      return self.read(number, self._handles[argument], offset, length)
    if kind == FSTAT:
      return self.send(ATTRS, number + self.fstat(self._handles[argument]))
    if kind == READDIR:
      return self.readdir(number, argument)
    return self.status(number, OK)

  def _send_handle(self, number, name):
    handle = b'%d' % next(self._numbers)
    self._handles[handle] = name
    self.send(HANDLE, number + string(handle))

  def read(self, number, name, offset, length):
    data = self.files[name][offset : offset + length]
    if not data:
      return self.status(number, EOF)
    return self.send(DATA, number + string(data))

  def fstat(self, name):
    return attributes(len(self.files[name]))

  def readdir(self, number, handle):
    if handle not in self._handles:
      return self.status(number, EOF)
    del self._handles[handle]
    listed = {name: attributes(len(data)) for name, data in self.files.items()} | self.listed
    return self.names(number, listed)

  def names(self, number, listed, count=None):
    entries = [string(name) + string('') + values for name, values in listed.items()]
    count = len(entries) if count is None else count
    return self.send(NAME, number + struct.pack('>I', count) + b''.join(entries))


def _listing(*names, mode=FILE):
  """A lie: these are listed beside the others."""

  class Listing(Liar):
    def __init__(self, *args):
      super().__init__(*args)
      for name in names:
        self.listed[name] = attributes(4, mode)

  return Listing


def _contents(**files):
  """A lie: the files named (`__` for a point) have these contents."""

  class Contents(Liar):
    def __init__(self, *args):
      super().__init__(*args)
      self.files |= {name.replace('__', '.'): data for name, data in files.items()}

  return Contents


def _fstat(asked, size, mode=FILE):
  """A lie: an open file of this name has this size and mode, and endless contents."""

  class Fstat(Liar):
    def fstat(self, name):
      return attributes(size, mode) if name == asked else super().fstat(name)

    def read(self, number, name, offset, length):
      if name == asked:
        return self.send(DATA, number + string(length * b'x'))
      return super().read(number, name, offset, length)

  return Fstat


def _reading(answer):
  """A lie: what is read of metrics.csv is answered by `answer(liar, number, length)`."""

  class Reading(Liar):
    def read(self, number, name, offset, length):
      if name == 'metrics.csv':
        return answer(self, number, length)
      return super().read(number, name, offset, length)

  return Reading


def _listed(answer):
  """A lie: a listing is answered by `answer(liar, number)`."""

  class Listed(Liar):
    def readdir(self, number, handle):
      return answer(self, number)

  return Listed


def _thousand_names(liar, number):
  first = 1000 * next(liar._numbers)
  liar.names(number, {f'model.ckpt-{first + n}.index': attributes(1) for n in range(1000)})


def _other_numbers(liar, number):
  for _ in range(100_000):
    liar.send(STATUS, struct.pack('>I', 10**6) + struct.pack('>I', OK) + string('') + string(''))


_HUGE = struct.pack('>I', 2**32 - 1)
MANY_ATTRIBUTES = struct.pack('>I', 0x80000000) + _HUGE
_WEIGHTS = '.data-00000-of-00001'
LIES = {
  'a name above': _listing('../outside.index', f'../outside{_WEIGHTS}'),
  'a name far above': _listing(f'x/../../../outside{_WEIGHTS}', 'x/../../../outside.index'),
  'an absolute name': _listing('/tmp/outside-of-the-run.index'),
  'the folder and the one above': _listing('.', '..', ''),
  'a name in a deeper folder': _listing('deeper/model.ckpt-6.index'),
  'backslashes': _listing('..\\outside.index'),
  'a name that steers a terminal': _listing('\x1b]0;owned\x07\x1b[2J.index', '\x9b2J.index'),
  'a name of several lines': _listing('a\nb.index', 'a\rb.index'),
  'a name that turns the writing round': _listing('\u202exedni.index'),
  'a name that is no text': _listing(b'\xff\xfe.index', b'\xc3.index'),
  'a name of 300 letters': _listing(300 * 'n' + '.index'),
  'a name with a zero': _listing('model.ckpt-5.index\0.txt'),
  'links, folders and devices': _listing('a.index', 'b.index', mode=LINK),
  'a device': _listing('evaluation.json', mode=DEVICE),
  'a file that is a folder when it is opened': _fstat('metrics.csv', 4, FOLDER),
  'a record of a petabyte': _fstat('metrics.csv', PETABYTE),
  'a run.json of a petabyte': _fstat('run.json', PETABYTE),
  'a size of all bits': _fstat('metrics.csv', 2**64 - 1),
  'a weight of an exabyte': _fstat('model.ckpt-5.data-00000-of-00001', 10**18),
  'a file that is shorter': _reading(lambda liar, n, _: liar.status(n, EOF)),
  'more than was asked': _reading(
    lambda liar, n, size: liar.send(DATA, n + string(2 * size * b'x'))
  ),
  'a part of nothing': _reading(lambda liar, n, _: liar.send(DATA, n + string(b''))),
  'a part that claims 4 GB': _reading(lambda liar, n, _: liar.send(DATA, n + _HUGE + b'x')),
  'a part that is a list': _reading(lambda liar, n, _: liar.names(n, {})),
  'an error that steers a terminal': _reading(
    lambda liar, n, _: liar.status(n, 4, b'\x1b[2J\x1b]0;owned\x07 gone \xff')
  ),
  'a packet that claims 4 GB': _listed(lambda liar, n: liar._write(_HUGE + b'x')),
  'a packet of 16 MB': _listed(lambda liar, n: liar.send(NAME, n + 2**24 * b'x')),
  'a list that claims 4 billion names': _listed(lambda liar, n: liar.names(n, {}, 2**32 - 1)),
  'four billion attributes': _listed(lambda liar, n: liar.names(n, {'a': MANY_ATTRIBUTES})),
  'a name without attributes': _listed(lambda liar, n: liar.names(n, {'run.json': b''})),
  'a list without end': _listed(_thousand_names),
  'the same list without end': _listed(lambda liar, n: liar.names(n, {'a': attributes(1)})),
  'an empty list without end': _listed(lambda liar, n: liar.names(n, {})),
  'answers to what nobody asked': _listed(_other_numbers),
  'a run.json of lists': _contents(run__json=b'[[[]]]'),
  'a run.json of another shape': _contents(run__json=b'{"starts": {"a": 1}}'),
  'a run.json without end': _contents(run__json=100_000 * b'['),
  'a best that is a path': _contents(checkpoints__json=b'{"best": "../../../etc/passwd"}'),
  'a best that is no name': _contents(checkpoints__json=b'{"best": {"a": [1]}}'),
  'a list of checkpoints that is none': _contents(checkpoints__json=b'"best"'),
  'an index that is no text': _contents(checkpoint=b'model_checkpoint_path: "\xff\x1b[2J"\n'),
  'an index that names a path': _contents(checkpoint=b'model_checkpoint_path: "/etc/passwd"\n'),
}


def main():
  out = sys.stdout.buffer

  def write(data):
    out.write(data)
    out.flush()

  LIES[sys.argv[1]](sys.stdin.buffer.read, write).serve()


if __name__ == '__main__':
  main()
