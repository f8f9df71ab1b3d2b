"""Hosts on this machine with a scripted program in place of the agent.

What is real: the scripts, the processes, their pipes. What is not: that the host tells the truth.
"""

import json
import os
import sys
import types

import pytest

from frontend import cluster
from frontend.connection import hosts
from frontend.console import Console

# Answers as told by the files beside it: `silent` (no answer at all), `gone` (ends at the first
# request), NAME.json (the reply to the request NAME), NAME.raw (what is sent in its place). Writes
# every request to `asked`.
PROGRAM = """
import json, os, sys, time
for line in sys.stdin:
  request = json.loads(line)
  with open('asked', 'a') as file:
    file.write(request['request'] + chr(10))
  name = request['request']
  while os.path.exists('silent') and name != 'hello':
    time.sleep(0.05)
  if os.path.exists('gone'):
    sys.exit()
  if os.path.exists(name + '.raw'):
    sys.stdout.write(open(name + '.raw').read())
  else:
    reply = json.load(open(name + '.json')) if os.path.exists(name + '.json') else {}
    if 'number' in request:
      reply['number'] = request['number']
    print('@impala ' + json.dumps(reply))
  sys.stdout.flush()
"""


class Scripted:
  """One such host: its folder and what it is told to say.

  Args:
    folder: path of a new folder.
    address: of this machine.
    tasks: names of its tasks.
  """

  def __init__(self, folder, address='127.0.0.1', tasks=()):
    self.folder = str(folder)
    os.makedirs(folder)
    self.write('run_experiment_mm_raw.py', PROGRAM)
    self.says('hello', numbered=True)
    self.says('hold', launched=True, firewall=False)
    self.says('end', ended=[])
    self.says('ask', asked=True)
    self.tasks = [_task(name, address) for name in tasks]
    self.host = cluster.Host(address, None, '', self.folder, sys.executable, tuple(self.tasks))

  def write(self, name, text=''):
    """Writes a file in one step."""
    with open(os.path.join(self.folder, name + '.new'), 'w', encoding='utf-8') as file:
      file.write(text)
    os.replace(os.path.join(self.folder, name + '.new'), os.path.join(self.folder, name))

  def remove(self, name):
    os.remove(os.path.join(self.folder, name))

  def says(self, request, **reply):
    """Sets the reply to a request."""
    self.write(request + '.json', json.dumps(reply))

  def tells(self, **states):
    """Sets what `status` says: the state of each task, by its name with `_` for `-`."""
    rows = [
      {'task': name.replace('_', '-'), 'state': state, 'left': state == 'running', 'restarts': 0,
       'seen': state == 'running', 'exit_code': 1 if state == 'exited 1' else None,
       'last_line': ''}
      for name, state in states.items()
    ]  # fmt: skip
    self.says('status', tasks=rows)

  def asked(self):
    """Names of the requests so far."""
    path = os.path.join(self.folder, 'asked')
    if not os.path.exists(path):
      return []
    with open(path, encoding='utf-8') as file:
      return file.read().split()


def _task(name, address):
  job, _, number = name.partition('-')
  empty = dict.fromkeys(cluster.Task._fields, '')
  return cluster.Task(**empty | {'job': job, 'index': int(number), 'ip': address, 'flags': ()})


@pytest.fixture(name='scripted')
def scripted_fixture(tmp_path):
  """Makes a `Scripted` and opens it: returns both."""
  opened = []

  def make(**arguments):
    one = Scripted(tmp_path / f'host {len(opened)}', **arguments)
    opened.append(hosts.open_host(one.host))
    return one, opened[-1]

  yield make
  for host in opened:
    host.close(at_once=True)


@pytest.fixture(name='cluster_of')
def cluster_of_fixture(tmp_path):
  """Makes a Console of `Scripted` hosts that prints to a list."""
  consoles = []

  def make(*scripted, **options):
    described = cluster.Cluster(
      tuple(task for one in scripted for task in one.tasks), tuple(one.host for one in scripted), ()
    )
    defaults = {'tmux_sess': 's', 'tmux_socket': '', 'now': False, 'cluster_csv_path': 'c.csv'}
    console = Console(described, types.SimpleNamespace(**defaults | options), [])
    said = []
    console.say = said.append
    consoles.append(console)
    return console, said

  yield make
  for console in consoles:
    console.close(at_once=True)
