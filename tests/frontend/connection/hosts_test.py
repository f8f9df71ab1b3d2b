"""Which host is this machine, defaults of its cells, and how a terminal attaches to it."""

import getpass
import sys

from frontend import cluster
from frontend.connection import hosts


def test_which_hosts_are_this_machine():
  def here(address, port=None, username=''):
    return hosts.is_this_machine(cluster.Host(address, port, username, '', '', ()))

  assert here('localhost') and here('127.0.0.1', 22) and here('localhost', None, getpass.getuser())
  assert not here('localhost', 2222)
  assert not here('localhost', None, 'somebody-else')
  assert not here('192.0.2.1')


def test_defaults_of_workdir_and_python():
  def where(address, workdir='', python=''):
    return hosts.workdir_and_python(cluster.Host(address, None, '', workdir, python, ()))

  assert where('localhost') == (hosts.CODE, sys.executable)
  assert where('localhost', '/w') == ('/w', '.venv/bin/python')
  assert where('192.0.2.1') == ('~/impala', '.venv/bin/python')
  assert where('192.0.2.1', '/w', '/p') == ('/w', '/p')


def test_the_command_that_attaches_a_terminal():
  host = hosts.SshHost(cluster.Host('10.0.0.1', 2222, 'ann', '', '', ()))
  assert host.attach_arguments(['tmux', 'attach-session', '-t', '=s:=ps-0']) == [
    'ssh', '-t', '-o', 'StrictHostKeyChecking=yes', '-p', '2222', '-l', 'ann', '10.0.0.1',
    "'tmux' 'attach-session' '-t' '=s:=ps-0'"]  # fmt: skip
