"""Checks that a host does alone before a cluster starts on it."""

import os
import sys

from common import ports
from frontend.host_side import host_check


def test_addresses_that_the_internet_reaches_are_refused():
  passed, text = host_check.check_address('8.8.8.8', False)
  assert not passed and 'no authentication' in text and '--allow_public_addresses' in text
  assert host_check.check_address('8.8.8.8', True) == (True, '8.8.8.8')
  assert host_check.check_address('10.0.0.1', False) == (True, '10.0.0.1')
  assert not host_check.check_address('2001:4860:4860::8888', False)[0]
  passed, text = host_check.check_address('host.invalid', False)
  assert passed is None and text.startswith('host.invalid does not resolve')


def test_checks_of_packages_disk_and_ports():
  passed, text = host_check.check_packages({'tensorflow': None, 'gymnasium': '1.0'})
  assert not passed and text.startswith(f'tensorflow not installed for {sys.executable}')
  passed, text = host_check.check_disk('/', minimum=10**18)
  assert not passed and 'a run needs' in text
  listener = ports.listening_socket(0)
  port = listener.getsockname()[1]
  passed, text = host_check.check_ports([port])
  assert not passed and f'port {port}: Address already in use (pid {os.getpid()}: ' in text
  listener.close()
  assert host_check.check_ports([port])[0]


def test_a_host_without_tmux(monkeypatch):
  monkeypatch.setenv('PATH', '/nowhere')
  assert host_check.check_tmux()[1].startswith('tmux is not installed')
  assert host_check.check_session('', 'imp')[0]
