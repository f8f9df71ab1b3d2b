"""System calls that fail for this process and its children, as on a broken disk, by seccomp.

It is in force until the process ends.
"""

import ctypes
import os
import platform
import struct

# By machine: its number in linux/audit.h, and those of the calls.
_MACHINES = {
  'x86_64': (0xC000003E, dict(getdents64=217, openat=257, newfstatat=262, read=0, flock=73,
                              pread64=17, write=1, fsync=74)),
  'aarch64': (0xC00000B7, dict(getdents64=61, openat=56, newfstatat=79, read=63, flock=32,
                               pread64=67, write=64, fsync=82)),
}  # fmt: skip
CALLS = ('opendir', 'getdents64', 'read', 'newfstatat')
NOT_HERE = '' if platform.machine() in _MACHINES else f'no numbers for {platform.machine()}'
_LOAD, _IF_EQUAL, _IF_ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 6
_ALLOW, _FAIL = 0x7FFF0000, 0x50000
_NUMBER, _MACHINE, _THIRD_ARGUMENT = 0, 4, 16 + 2 * 8


def refuse(call, code):
  """From now on a call fails with an errno; `opendir` is an openat of a folder."""
  machine, numbers = _MACHINES[platform.machine()]
  program = [
    (_LOAD, 0, 0, _MACHINE),
    (_IF_EQUAL, 1, 0, machine),
    (_RETURN, 0, 0, _ALLOW),
    (_LOAD, 0, 0, _NUMBER),
    (_IF_EQUAL, 1, 0, numbers['openat' if call == 'opendir' else call]),
    (_RETURN, 0, 0, _ALLOW),
  ]
  if call == 'opendir':
    program += [
      (_LOAD, 0, 0, _THIRD_ARGUMENT),
      (_IF_ANY_BIT, 1, 0, os.O_DIRECTORY),
      (_RETURN, 0, 0, _ALLOW),
    ]
  program.append((_RETURN, 0, 0, _FAIL | code))
  text = b''.join(struct.pack('HBBI', *instruction) for instruction in program)
  buffer = ctypes.create_string_buffer(text)

  class Program(ctypes.Structure):
    _fields_ = [('length', ctypes.c_ushort), ('filter', ctypes.c_void_p)]

  libc = ctypes.CDLL(None, use_errno=True)
  filter_program = Program(len(program), ctypes.addressof(buffer))
  if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, ctypes.byref(filter_program), 0, 0):
    raise OSError(ctypes.get_errno(), 'no filter of system calls here')
