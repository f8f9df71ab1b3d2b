"""The ports of a cluster are closed to strangers by the kernel, and nothing else changes.

Hosts 1 and 2 are the cluster; host 0 and host 3 are neighbours on the same link.
"""

import json
import os
import subprocess
import sys

import pytest

import conftest
import frontend_fixtures
import network_fixtures
from frontend.actions import firewall_table
from network_fixtures import network  # noqa: F401

PORTS = {1: (8000, 8001), 2: (9000,)}
ACTORS_PORT = 9001  # On host 2.
IPV6 = {number: f'fd00::1{number}' for number in range(4)}
OTHER_PORT = 7000
LISTEN = """
import socket, sys, time
held = [socket.create_server(('', int(port)), family=socket.AF_INET6, dualstack_ipv6=True)
        for port in sys.argv[1:]]
print('listening', flush=True)
time.sleep(600)
"""
REACH = """
import concurrent.futures, json, socket, sys
def reached(place):
  try:
    socket.create_connection(place, timeout=1.5).close()
  except OSError:
    return False
  return True
places = [tuple(place) for place in json.loads(sys.argv[1])]
with concurrent.futures.ThreadPoolExecutor(len(places)) as pool:
  print(json.dumps([place for place, there in zip(places, pool.map(reached, places)) if there]))
"""
BY_HAND = """
table inet by_hand {
  chain input {
    type filter hook input priority 0; policy accept;
    tcp dport 7001 drop
    tcp dport 8000 accept
  }
}
"""

# The interpreter may lie in a folder of root, which nobody reads without being allowed to.
NOBODY = [
  'setpriv', '--reuid=65534', '--regid=65534', '--clear-groups',
  '--inh-caps=+dac_override,+dac_read_search', '--ambient-caps=+dac_override,+dac_read_search',
]  # fmt: skip


class Field:
  """The cluster's hosts with listeners on their ports, and the frontend on host 0."""

  def __init__(self, network):  # noqa: F811
    self.network = network
    self.code = frontend_fixtures.copy_code(os.path.join(network.folder, 'code'), 'import sys\n')
    self.csv = os.path.join(self.code, 'c.csv')
    self.processes = {}
    for number, address in IPV6.items():
      device = 'eth0' if number else 'br0'
      network.command(number, 'ip', 'addr', 'add', address + '/64', 'dev', device, 'nodad')
    for number in (1, 2):
      network.sshds[number].make_known()
      self.listen(number)
    self.write_csv('10.0.0.11', '10.0.0.12')

  def write_csv(self, first, second, csv=None, code=None):
    cells = f',{code or self.code},{sys.executable}'
    with open(csv or self.csv, 'w', encoding='utf-8') as file:
      file.write(
        f'job,ip,tf_port,workdir,python\nps,{first},8000{cells}\nlearner,{first},8001{cells}\n'
        f'learner,{second},9000{cells}\nactor,{second},{ACTORS_PORT}{cells}\n'
      )

  def listen(self, number):
    """Starts the host's listeners, again if they run."""
    self.end(number)
    ports = map(str, (*PORTS[number], OTHER_PORT, ACTORS_PORT))
    process = subprocess.Popen(
      [*self.network.inside(number), sys.executable, '-c', LISTEN, *ports],
      stdout=subprocess.PIPE,
      text=True,
    )
    self.processes[number] = process
    assert process.stdout.readline() == 'listening\n'

  def end(self, number):
    process = self.processes.pop(number, None)
    if process:
      network_fixtures.end_processes([process.pid])
      process.wait()
      process.stdout.close()

  def firewall(self, *words, number=0, prefix=(), csv=None):
    """Runs the action on a host."""
    return frontend_fixtures.frontend(
      [f'--cluster_csv_path={csv or self.csv}', '--tmux_sess=fw', '--action=firewall', *words],
      self.code,
      [*self.network.inside(number), *prefix],
      HOME=self.network.home,
    )

  def reached(self, number, places):
    """Of the (address, port), those that a program on a host connects to."""
    found = self.network.command(number, sys.executable, '-c', REACH, json.dumps(places))
    return [tuple(place) for place in json.loads(found)]

  def rules(self, number):
    return self.network.command(number, 'nft', 'list', 'ruleset')


@pytest.fixture(scope='module', name='field')
def field_fixture(network):  # noqa: F811
  network_fixtures.tool('nft')
  made = Field(network)
  yield made
  for number in list(made.processes):
    made.end(number)


@pytest.fixture
def closed(field):
  """The field with a rule set by hand on host 1, and then the firewall on both hosts."""
  load = [*field.network.inside(1), 'nft', '-f', '-']
  subprocess.run(load, input=BY_HAND, text=True, check=True)
  field.before = {number: field.rules(number) for number in (1, 2)}
  applied = field.firewall('--apply')
  assert applied.returncode == 0, applied.stdout + applied.stderr
  assert '10.0.0.11: only hosts of this cluster reach 8000, 8001\n' in applied.stdout
  yield field
  for number in (1, 2):
    field.network.command(number, 'nft', 'flush', 'ruleset')
    for name in os.listdir(os.path.join(field.code, '.cluster', 'fw')):
      os.remove(os.path.join(field.code, '.cluster', 'fw', name))


def places(*families):
  """Every (address, port) of the cluster."""
  addresses = {'ipv4': network_fixtures.Network.ADDRESSES, 'ipv6': IPV6}
  return [
    (addresses[family][number], port)
    for family in families
    for number, ports in PORTS.items()
    for port in ports
  ]


def test_strangers_reach_no_port_and_the_cluster_all(closed):
  elsewhere = [('10.0.0.11', OTHER_PORT), (IPV6[2], OTHER_PORT)]
  for _ in range(2):  # The second time after a restart of the listeners.
    for stranger in (0, 3):
      found = closed.reached(stranger, places('ipv4', 'ipv6') + elsewhere)
      assert found == elsewhere
    for member in (1, 2):
      assert closed.reached(member, places('ipv4')) == places('ipv4')
      own = [(address, port) for address in ('127.0.0.1', '::1', IPV6[member])
             for port in PORTS[member]]  # fmt: skip
      assert closed.reached(member, own) == own
    # The CSV names addresses of IPv4 alone.
    assert closed.reached(1, [(IPV6[2], 9000)]) == []
    # Nobody needs an actor, but what runs beside it may be looking.
    for other in (0, 1, 3):
      assert closed.reached(other, [('10.0.0.12', ACTORS_PORT), (IPV6[2], ACTORS_PORT)]) == []
    assert closed.reached(2, [('127.0.0.1', ACTORS_PORT)])
    for number in PORTS:
      closed.listen(number)


RESTRICT = """
import socket, sys, time
from runtime import cluster, listening
held = [socket.create_server(('', port), family=socket.AF_INET6, dualstack_ipv6=True)
        for port in (7100, 7101)]
local = cluster.Cluster(('localhost:7100',), ('127.0.0.1:7',), ('localhost:8',), 'ps', 0)
listening.restrict(local, 7100)
listening.restrict(cluster.Cluster(('a:1',), ('b:2',), ('c:7101',), 'actor', 0), 7101)
print('listening', flush=True)
time.sleep(600)
"""


def test_without_a_firewall_a_run_within_one_machine_is_closed_to_others(field):
  """Its servers keep to loopback, and an actor's lets nobody in at all."""
  process = subprocess.Popen(
    [*field.network.inside(1, conftest.ROOT), sys.executable, '-c', RESTRICT],
    stdout=subprocess.PIPE,
    text=True,
  )
  try:
    assert process.stdout.readline() == 'listening\n'
    outside = [(address, port) for address in ('10.0.0.11', IPV6[1]) for port in (7100, 7101)]
    assert [field.reached(number, outside) for number in (0, 2, 3)] == 3 * [[]]
    inside = [('127.0.0.1', 7100), ('::1', 7100)]
    assert field.reached(1, [*inside, ('127.0.0.1', 7101)]) == inside
  finally:
    network_fixtures.end_processes([process.pid])
    process.wait()
    process.stdout.close()


def test_removal_leaves_the_other_rules_as_they_were(closed):
  assert 'table inet impala-fw {' in closed.rules(1) and 'by_hand' in closed.rules(1)
  again = closed.firewall('--apply')  # Replaces itself.
  assert again.returncode == 0 and closed.rules(1).count('impala-fw') == 1, again.stdout
  removed = closed.firewall('--remove')
  assert removed.returncode == 0
  assert '10.0.0.12: the firewall of session fw is removed\n' in removed.stdout
  assert {number: closed.rules(number) for number in (1, 2)} == closed.before
  assert 'by_hand' in closed.before[1] and closed.before[2] == ''
  assert closed.reached(0, places('ipv4', 'ipv6')) == places('ipv4', 'ipv6')
  once_more = closed.firewall('--remove')
  assert once_more.returncode == 0
  assert '10.0.0.11: no firewall of session fw was set from here\n' in once_more.stdout


def test_stop_removes_what_was_set(closed):
  words = [f'--cluster_csv_path={closed.csv}', '--tmux_sess=fw', '--action=stop', '--now']
  stopped = frontend_fixtures.frontend(
    words, closed.code, closed.network.inside(0), HOME=closed.network.home
  )
  assert 'nothing was launched as session fw\n' in stopped.stdout
  assert stopped.returncode == 0, stopped.stdout + stopped.stderr
  assert stopped.stdout.count('the firewall of session fw is removed') == 2
  assert {number: closed.rules(number) for number in (1, 2)} == closed.before


def test_ipv6_and_names_that_the_hosts_know(field):
  """Host names stand in /etc/hosts, over IPv6 alone, and hosts of IPv4 are strangers then."""
  path = os.path.join(field.network.folder, 'hosts')
  with open('/etc/hosts', encoding='utf-8') as old, open(path, 'w', encoding='utf-8') as file:
    file.write(f'{old.read()}\n{IPV6[1]} alpha.impala.test\n{IPV6[2]} beta.impala.test\n')
  ports = (*PORTS[2], ACTORS_PORT)
  table = firewall_table.table(
    'fw', ports, [IPV6[1], IPV6[2]], all_ports=[*PORTS[1], *ports], closed=[ACTORS_PORT]
  )
  for number in (1, 2):
    field.network.command(number, 'mount', '--bind', path, '/etc/hosts')
  field.write_csv('alpha.impala.test', 'beta.impala.test')
  try:
    # On host 2, which is then this machine; host 1 has to be reached, and cannot be logged in to.
    shown = field.firewall(number=2)
    assert table in shown.stdout
    subprocess.run([*field.network.inside(2), 'nft', '-f', '-'], input=table, text=True, check=True)
    assert field.reached(1, [(IPV6[2], 9000)]) == [(IPV6[2], 9000)]
    for stranger in (0, 1, 3):
      assert field.reached(stranger, [('10.0.0.12', 9000)]) == []
      assert (field.reached(stranger, [(IPV6[2], 9000)]) == []) == (stranger != 1)
  finally:
    field.write_csv('10.0.0.11', '10.0.0.12')
    field.network.command(2, 'nft', 'flush', 'ruleset')
    for number in (1, 2):
      field.network.command(number, 'umount', '/etc/hosts')


@pytest.mark.parametrize('interface,arrives', [('eth0', True), ('wg0', False)])
def test_only_one_interface(closed, interface, arrives):
  assert closed.firewall('--apply', f'--interface={interface}').returncode == 0
  assert bool(closed.reached(2, [('10.0.0.11', 8000)])) == arrives
  assert closed.reached(1, [('10.0.0.11', 8000)])  # Over loopback, as it always may.


@pytest.fixture
def guest(closed):
  """A container behind host 1, which leaves with that host's address; a prefix to run in it.

  Host 1 forwards its own port 8000 to the container, as `docker run --publish` does.
  """
  network = closed.network  # noqa: F811
  name, host = f'impala{os.getpid()}-guest', network.name_of(1)
  rules = """
table ip guests {
  chain out { type nat hook postrouting priority 100; ip saddr 172.31.0.2 masquerade; }
  chain in { type nat hook prerouting priority -100; tcp dport 6100 dnat to 172.31.0.2:7000; }
}
"""
  for words in (
    ['netns', 'add', name],
    ['-n', host, 'link', 'add', 'guests', 'type', 'veth', 'peer', 'name', 'eth0', 'netns', name],
    ['-n', host, 'addr', 'add', '172.31.0.1/24', 'dev', 'guests'],
    ['-n', host, 'link', 'set', 'guests', 'up'],
    ['-n', name, 'addr', 'add', '172.31.0.2/24', 'dev', 'eth0'],
    ['-n', name, 'link', 'set', 'eth0', 'up'],
    ['-n', name, 'link', 'set', 'lo', 'up'],
    ['-n', name, 'route', 'add', 'default', 'via', '172.31.0.1'],
  ):
    network.ip(*words)
  network.command(1, 'sysctl', '-qw', 'net.ipv4.ip_forward=1')
  load = [*network.inside(1), 'nft', '-f', '-']
  subprocess.run(load, input=rules, text=True, check=True)
  yield ['ip', 'netns', 'exec', name]
  network.ip('netns', 'del', name)


def test_containers_behind_a_host_reach_nothing(closed, guest):
  def reached(places):
    words = [*guest, sys.executable, '-c', REACH, json.dumps(places)]
    found = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    return [tuple(place) for place in json.loads(found)]

  elsewhere = [('10.0.0.12', OTHER_PORT), ('10.0.0.11', OTHER_PORT)]
  everything = [*places('ipv4'), ('10.0.0.12', ACTORS_PORT), ('172.31.0.1', 8000), *elsewhere]
  assert reached(everything) == elsewhere
  assert closed.reached(2, places('ipv4')) == places('ipv4')
  closed.firewall('--remove')
  assert reached(everything) == everything


def test_a_task_in_a_container_behind_a_published_port_is_closed_too(field, guest):
  """Its packets are forwarded, not taken in, and have the container's port by then."""
  listener = subprocess.Popen(
    [*guest, sys.executable, '-c', LISTEN, '7000'], stdout=subprocess.PIPE, text=True
  )
  try:
    assert listener.stdout.readline() == 'listening\n'
    published = [('10.0.0.11', 6100)]
    assert [field.reached(number, published) for number in (0, 2, 3)] == 3 * [published]
    table = firewall_table.table('fw', [8000, 6100], ['10.0.0.11', '10.0.0.12'], all_ports=[9000])
    load = [*field.network.inside(1), 'nft', '-f', '-']
    subprocess.run(load, input=table, text=True, check=True)
    assert [field.reached(number, published) for number in (0, 2, 3)] == [[], published, []]
  finally:
    network_fixtures.end_processes([listener.pid])
    listener.wait()
    listener.stdout.close()


def test_other_users_of_the_hosts_are_strangers_too(closed):
  everywhere = [*places('ipv4'), ('127.0.0.1', 9000), ('::1', 9000)]
  try_as_nobody = [*closed.network.inside(2), *NOBODY, sys.executable, '-c', REACH]

  def reached_by_nobody():
    words = [*try_as_nobody, json.dumps(everywhere)]
    return json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)

  assert len(reached_by_nobody()) == len(everywhere)
  applied = closed.firewall('--apply', '--only_this_user')
  assert applied.returncode == 0, applied.stdout
  assert reached_by_nobody() == []
  assert closed.reached(2, everywhere) == everywhere


# ---- Nobody is cut off, and what was set is looked for. ------------------------------------------


def test_a_table_on_trial_opens_again_by_itself(field):
  """By the kernel's clock: nothing on the host has to live for it."""
  text = firewall_table.table('fw', PORTS[1], ['10.0.0.12'], trial_secs=4)
  load = [*field.network.inside(1), 'nft', '-f', '-']
  subprocess.run(load, input=text, text=True, check=True)
  try:
    assert field.reached(0, [('10.0.0.11', 8000)]) == []
    assert field.reached(2, [('10.0.0.11', 8000)])
    conftest.eventually(lambda: field.reached(0, [('10.0.0.11', 8000)]), 30)
  finally:
    field.network.command(1, 'nft', 'flush', 'ruleset')


def test_what_cuts_this_machine_off_is_taken_back(closed):
  """Host 2 is reached through a port that host 1 forwards, and that a task there would close."""
  network = closed.network  # noqa: F811
  forward = """
table ip ways {
  chain in { type nat hook prerouting priority -100; tcp dport 2222 dnat to 10.0.0.12:22; }
  chain out { type nat hook postrouting priority 100; ip daddr 10.0.0.12 masquerade; }
}
"""
  ssh = os.path.join(network.home, '.ssh')
  subprocess.run([*network.inside(1), 'nft', '-f', '-'], input=forward, text=True, check=True)
  network.command(1, 'sysctl', '-qw', 'net.ipv4.ip_forward=1')
  with open(os.path.join(ssh, 'config'), 'w', encoding='utf-8') as file:
    file.write('Host 10.0.0.12\n  HostName 10.0.0.11\n  Port 2222\n')
  with open(os.path.join(ssh, 'known_hosts'), 'a', encoding='utf-8') as file:
    file.write('[10.0.0.11]:2222 ' + network.sshds[2].known_hosts_line().split(' ', 1)[1])
  before = {number: closed.rules(number) for number in (1, 2)}
  csv = os.path.join(closed.code, 'cuts_off.csv')
  with open(closed.csv, encoding='utf-8') as old, open(csv, 'w', encoding='utf-8') as file:
    file.write(old.read().replace('8001', '2222'))
  try:
    applied = closed.firewall('--apply', csv=csv)
    after = {number: closed.rules(number) for number in (1, 2)}
  finally:
    os.remove(os.path.join(ssh, 'config'))
  assert applied.returncode == 1, applied.stdout + applied.stderr
  assert '10.0.0.12: with the firewall this machine cannot connect any more' in applied.stdout
  assert applied.stdout.count('what was set before is in force again now\n') == 2
  assert 'only hosts of this cluster reach' not in applied.stdout
  assert after == before


def test_the_port_of_the_connection_is_never_closed(field):
  """The CSV's column is empty; sshd listens at a second port, which ~/.ssh/config names."""
  network = field.network  # noqa: F811
  ssh = os.path.join(network.home, '.ssh')
  sshd = network_fixtures.Sshd(
    os.path.join(network.folder, 'second_sshd'), network.home, '10.0.0.11', 8001, network.inside(1)
  )
  sshd.make_known()
  field.end(1)
  with open(os.path.join(ssh, 'config'), 'w', encoding='utf-8') as file:
    file.write('Host 10.0.0.11\n  Port 8001\n')
  before = field.rules(1)
  try:
    sshd.start()
    applied = field.firewall('--apply')
  finally:
    sshd.close()
    os.remove(os.path.join(ssh, 'config'))
    field.listen(1)
  assert applied.returncode == 2
  assert 'tf_port 8001 of 10.0.0.11 is the port of SSH there, and would be' in applied.stderr
  assert field.rules(1) == before


def test_launch_says_that_what_was_set_is_gone(closed):
  """As after a start of host 2, which then has another boot id."""
  path = os.path.join(closed.network.folder, 'boot_id')
  with open(path, 'w', encoding='ascii') as file:
    file.write('another\n')
  closed.network.command(2, 'mount', '--bind', path, '/proc/sys/kernel/random/boot_id')
  closed.network.command(2, 'nft', 'flush', 'ruleset')
  for number in PORTS:
    closed.end(number)
  words = [f'--cluster_csv_path={closed.csv}', '--tmux_sess=fw', '--level_name=impala/Catch-v0']
  try:
    launched = frontend_fixtures.frontend(
      words, closed.code, closed.network.inside(0), HOME=closed.network.home
    )
  finally:
    closed.network.command(2, 'umount', '/proc/sys/kernel/random/boot_id')
    for number in PORTS:
      closed.listen(number)
  assert launched.returncode == 1, launched.stdout + launched.stderr
  assert 'nothing was started' in launched.stdout
  assert [line for line in launched.stdout.splitlines() if ', firewall: ' in line] == [
    '10.0.0.12, firewall: the firewall of session fw was set here before this host was started '
    'anew, and is gone; set it again: --action=firewall --apply'
  ], launched.stdout


def test_a_name_that_a_host_takes_for_another_address_lets_nobody_in(field):
  """Host 1 takes host 2's name for the address of host 3, a stranger."""
  network = field.network  # noqa: F811
  paths = {}
  for number, beta in ((0, '10.0.0.12'), (1, '10.0.0.13'), (2, '10.0.0.12')):
    paths[number] = os.path.join(network.folder, f'hosts_of_{number}')
    with open(paths[number], 'w', encoding='utf-8') as file:
      file.write(f'127.0.0.1 localhost\n10.0.0.11 alpha\n{beta} beta\n')
    network.command(number, 'mount', '--bind', paths[number], '/etc/hosts')
  with open(os.path.join(network.home, '.ssh', 'known_hosts'), 'a', encoding='utf-8') as file:
    for number, name in ((1, 'alpha'), (2, 'beta')):
      file.write(f'{name} ' + network.sshds[number].known_hosts_line().split(' ', 1)[1])
  field.write_csv('alpha', 'beta')
  try:
    applied = field.firewall('--apply')
    assert applied.returncode == 1, applied.stdout + applied.stderr
    assert (
      'alpha: beta is 10.0.0.13 here, which that host does not have; give its address in the CSV, '
      'or correct /etc/hosts here\nnothing was set, on no host\n'
    ) == applied.stdout
    assert [field.rules(number) for number in (1, 2)] == ['', '']
    network.command(1, 'umount', '/etc/hosts')
    network.command(1, 'mount', '--bind', paths[2], '/etc/hosts')
    assert field.firewall('--apply').returncode == 0
    assert field.reached(3, places('ipv4')) == [] and field.reached(2, places('ipv4'))
  finally:
    field.write_csv('10.0.0.11', '10.0.0.12')
    field.firewall('--remove')
    for number in paths:
      network.command(number, 'nft', 'flush', 'ruleset')
      network.command(number, 'umount', '/etc/hosts')


def test_a_table_of_somebody_else_is_left_alone(field):
  field.network.command(2, 'nft', 'add', 'table', 'inet', 'impala-fw')
  try:
    before = field.rules(2)
    applied = field.firewall('--apply')
    assert applied.returncode == 1
    assert '10.0.0.12: a table inet impala-fw is there already and was not set by' in applied.stdout
    removed = field.firewall('--remove')
    assert removed.returncode == 2 and field.rules(2) == before
    assert 'sudo nft delete table inet impala-fw' in removed.stdout
    assert '10.0.0.11: the firewall of session fw is removed' in removed.stdout
  finally:
    field.network.command(2, 'nft', 'flush', 'ruleset')


# ---- What goes wrong. ----------------------------------------------------------------------------


def test_without_nft(field):
  nft = network_fixtures.tool('nft')
  hidden = ['unshare', '-m', 'sh', '-c', f'mount --bind /dev/null {nft} && exec "$@"', 'sh']
  field.write_csv('localhost', '127.0.0.1')
  try:
    applied = field.firewall('--apply', number=1, prefix=hidden)
  finally:
    field.write_csv('10.0.0.11', '10.0.0.12')
  assert applied.returncode == 2 and applied.stderr == ''
  assert applied.stdout.startswith(
    'localhost: the firewall was not set: nft is not installed (for example: sudo apt-get install '
    "nftables); an administrator runs there:\nsudo nft -f - <<'END'\n"
  )


@pytest.mark.parametrize(
  'login,reason',
  [
    (NOBODY, 'this login is not root, and '),
    (['setpriv', '--bounding-set=-net_admin'], 'nft may not change the firewall here: Oper'),
  ],
  ids=['no root', 'root of a container'],
)
def test_a_login_that_may_not_is_told_what_an_administrator_runs(field, login, reason):
  """The command that is printed does set it."""
  code = frontend_fixtures.copy_code(os.path.join(field.network.folder, f'of_{len(login)}'))
  csv = os.path.join(code, 'c.csv')
  field.write_csv('localhost', '127.0.0.1', csv, code)
  os.chmod(field.network.folder, 0o755)
  os.chown(code, 65534, 65534)
  applied = field.firewall('--apply', number=1, prefix=login, csv=csv)
  assert applied.returncode == 2 and applied.stderr == ''
  sentence, command = applied.stdout.split('\n', 1)
  assert '    tcp dport { 8000, 8001, 9000, 9001 } drop\n' in command
  assert sentence.startswith(f'localhost: the firewall was not set: {reason}')
  assert sentence.endswith('; an administrator runs there:')
  assert field.rules(1) == ''
  # No file is left that root would read and this user could write meanwhile.
  assert not os.path.exists(os.path.join(code, '.cluster', 'fw'))
  assert command.startswith("sudo nft -f - <<'END'\n")
  field.network.command(1, 'sh', '-c', command.removeprefix('sudo '))
  try:
    assert field.reached(0, places('ipv4')) == [('10.0.0.12', 9000)]
    assert field.reached(1, [('127.0.0.1', 8000)])
  finally:
    field.network.command(1, 'nft', 'flush', 'ruleset')


def test_a_login_with_sudo_sets_and_removes_it(field):
  network_fixtures.tool('sudo')
  nft = network_fixtures.tool('nft')
  code = frontend_fixtures.copy_code(os.path.join(field.network.folder, 'of_sudo'))
  csv = os.path.join(code, 'c.csv')
  field.write_csv('localhost', '127.0.0.1', csv, code)
  os.chmod(field.network.folder, 0o755)
  os.chown(code, 65534, 65534)
  mounts = []
  for name, text, mode in (
    ('sudoers', f'nobody ALL=(root) NOPASSWD: {nft}\n', 0o440),
    ('shadow', 'root:*:19000:0:99999:7:::\nnobody:*:19000:0:99999:7:::\n', 0o640),
  ):
    path = os.path.join(field.network.folder, name + '_of_sudo')
    with open(path, 'w', encoding='utf-8') as file:
      file.write(text)
    os.chmod(path, mode)
    mounts.append(f'mount --bind {path} /etc/{name} && ')
  login = ['unshare', '-m', 'sh', '-c', ''.join(mounts) + 'exec "$@"', 'sh', *NOBODY]
  applied = field.firewall('--apply', number=1, prefix=login, csv=csv)
  assert applied.returncode == 0, applied.stdout + applied.stderr
  assert field.reached(0, places('ipv4')) == [('10.0.0.12', 9000)]
  removed = field.firewall('--remove', number=1, prefix=login, csv=csv)
  assert removed.returncode == 0, removed.stdout + removed.stderr
  assert field.rules(1) == ''


@pytest.mark.parametrize(
  'words,sentence',
  [
    (['--action=firewall', '--apply', '--remove'], 'give one of them'),
    (['--action=firewall', '--interface=a;b'], "--interface='a;b' is not the name of a network"),
    (['--action=stop', '--remove'], '--remove belongs to firewall, not to stop'),
    (['--action=firewall', '--seed=1'], '--action=firewall takes no training flags'),
  ],
)
def test_bad_input_is_one_sentence_and_exit_2(words, sentence):
  result = frontend_fixtures.frontend(['--cluster_csv_path=local_cluster_example.csv', *words])
  assert result.returncode == 2 and sentence in result.stderr
  assert len(result.stderr.strip().splitlines()) == 1


def test_the_text_needs_no_host():
  """Addresses stand in their order, each once; those of loopback need no rule."""
  addresses = ['fd00::2', '10.0.0.12', '10.0.0.3', '10.0.0.12', '127.0.0.1', '::1']
  text = firewall_table.table('a-b', [9000, 8000, 9001], addresses, 'wg0', None, [7000], [9001])
  rules = [rule.strip() for rule in text.splitlines()]
  assert rules[5:9] == [
    'iif "lo" accept',
    'iifname "wg0" ip saddr { 10.0.0.3, 10.0.0.12 } tcp dport { 8000, 9000 } accept',
    'iifname "wg0" ip6 saddr { fd00::2 } tcp dport { 8000, 9000 } accept',
    'tcp dport { 8000, 9000, 9001 } drop',
  ]
  assert 'ip daddr { 10.0.0.3, 10.0.0.12 } tcp dport { 7000, 8000, 9000, 9001 } drop' in rules
