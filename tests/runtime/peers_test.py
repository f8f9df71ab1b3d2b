"""Ports of this machine, also where its kernel has no IPv6."""

import platform
import socket
import subprocess
import sys

import pytest

from conftest import ROOT

# As with ipv6.disable=1, socket(AF_INET6) fails with EAFNOSUPPORT (97): a filter of system calls
# sees to it, by the number of socket(2), which depends on the processor.
_NUMBERS = {'x86_64': 41, 'aarch64': 198}
_WITHOUT_IPV6 = """
import ctypes, socket, struct
steps = [(0x20, 0, 0, 0), (0x15, 0, 3, {number}), (0x20, 0, 0, 16), (0x15, 0, 1, 10),
         (6, 0, 0, 0x50000 | 97), (6, 0, 0, 0x7FFF0000)]
text = ctypes.create_string_buffer(b''.join(struct.pack('HBBI', *step) for step in steps))
class Program(ctypes.Structure):
  _fields_ = [('length', ctypes.c_ushort), ('filter', ctypes.c_void_p)]
libc = ctypes.CDLL(None)
libc.prctl(38, 1, 0, 0, 0)  # No new privileges.
assert libc.prctl(22, 2, ctypes.byref(Program(len(steps), ctypes.addressof(text))), 0, 0) == 0
assert socket.has_ipv6
"""
_CHECK = """
from runtime import peers
peers.check_port('localhost:{free}')
try:
  peers.check_port('localhost:{taken}')
except peers.BadInput as error:
  print(error)
"""
_LISTEN = """
from common import ports
print(ports.listening_socket({free}).getsockname())
"""


def _without_ipv6(program):
  """What a program prints where the kernel has no IPv6."""
  number = _NUMBERS.get(platform.machine())
  if not number:
    pytest.skip(f'the number of socket(2) on {platform.machine()} is not known here')
  done = subprocess.run(
    [sys.executable, '-c', _WITHOUT_IPV6.format(number=number) + program],
    cwd=ROOT, capture_output=True, text=True, check=False,
  )  # fmt: skip
  assert done.returncode == 0, done.stderr
  return done.stdout


def test_ports_are_checked_where_the_kernel_has_no_ipv6(free_ports):
  (free,) = free_ports(1)
  with socket.create_server(('127.0.0.1', 0)) as server:
    taken = server.getsockname()[1]
    said = _without_ipv6(_CHECK.format(free=free, taken=taken))
  assert f'port {taken} of localhost:{taken} is in use by process' in said


def test_a_host_is_reached_where_the_kernel_has_no_ipv6(free_ports):
  (free,) = free_ports(1)
  assert _without_ipv6(_LISTEN.format(free=free)) == f"('0.0.0.0', {free})\n"
