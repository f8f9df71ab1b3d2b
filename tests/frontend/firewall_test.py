"""The ports of a cluster are closed to strangers by the kernel, and nothing else changes.

Hosts 1 and 2 are the cluster; host 0 and host 3 are neighbours on the same link.
"""

import json
import os
import subprocess
import sys

import pytest

import frontend_fixtures
import network_fixtures
from frontend import firewall
from network_fixtures import network  # noqa: F401

PORTS = {1: (8000, 8001), 2: (9000,)}
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
    self.code = frontend_fixtures.copy_code(os.path.join(network.folder, 'code'))
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
        f'actor,{second},9000{cells}\n'
      )

  def listen(self, number):
    """Starts the host's listeners, again if they run."""
    self.end(number)
    ports = map(str, (*PORTS[number], OTHER_PORT))
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
    for number in PORTS:
      closed.listen(number)


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
  table = firewall.table('fw', PORTS[2], [IPV6[1], IPV6[2]])
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
  assert applied.stdout.splitlines()[-1].startswith(
    'localhost: the firewall was not set: nft is not installed (for example: sudo apt-get install '
    'nftables); an administrator runs there: sudo nft -f '
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
  *text, sentence = applied.stdout.strip().splitlines()
  assert '    tcp dport { 8000, 8001, 9000 } drop' in text, applied.stdout
  assert sentence.startswith(f'localhost: the firewall was not set: {reason}')
  assert field.rules(1) == ''
  command = sentence.partition('an administrator runs there: sudo ')[2]
  field.network.command(1, *command.split())
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
  rules = firewall.table('a-b', [9000, 8000], addresses, 'wg0').splitlines()[5:9]
  assert [rule.strip() for rule in rules] == [
    'iif "lo" accept',
    'iifname "wg0" ip saddr { 10.0.0.3, 10.0.0.12 } tcp dport { 8000, 9000 } accept',
    'iifname "wg0" ip6 saddr { fd00::2 } tcp dport { 8000, 9000 } accept',
    'tcp dport { 8000, 9000 } drop',
  ]
