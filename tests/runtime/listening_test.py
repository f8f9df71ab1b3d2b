"""runtime.listening: who may connect to a task's server."""

import os
import socket

import psutil
import pytest
import tensorflow as tf

from conftest import free_ports
from runtime import listening, sessions
from runtime.cluster import Cluster


def server_of(job, task, host='localhost'):
  ps, learner, actor = (f'{host}:{port}' for port in free_ports(3))
  return sessions.start_server(Cluster((ps,), (learner,), (actor,), job, task), None)


def test_files_of_this_process_stay_as_many():
  before = len(os.listdir('/proc/self/fd'))
  with socket.create_server(('127.0.0.1', 0)) as server:
    port = server.getsockname()[1]
    address = f'127.0.0.1:{port}'
    listening.restrict(Cluster((address,), (address,), (), 'ps', 0), port)
    assert len(os.listdir('/proc/self/fd')) == before + 1


def port_of(server):
  return int(server.target.rpartition(':')[2])


def answers(port, *hosts):
  """The addresses at which something accepts a connection."""
  found = []
  for host in hosts:
    try:
      socket.create_connection((host, port), timeout=5).close()
      found.append(host)
    except ConnectionRefusedError:
      pass
  return found


@pytest.mark.parametrize('task', [0, 3], ids=['listed', 'spare'])
def test_nobody_connects_to_an_actor_and_its_own_session_works(task):
  server = server_of('actor', task)
  assert answers(port_of(server), '127.0.0.1', '::1') == []
  assert port_of(server) not in [
    c.laddr.port for c in psutil.Process().net_connections('inet') if c.status == 'LISTEN'
  ]
  own = tf.compat.v1.ConfigProto(device_filters=[f'/job:actor/task:{task}'])
  with tf.Graph().as_default(), tf.compat.v1.Session(server.target, config=own) as session:
    with tf.device(f'/job:actor/task:{task}'):
      assert session.run(tf.constant(2) + 3) == 5


@pytest.mark.parametrize(
  'job,host,device',
  [('ps', 'localhost', b'lo\0'), ('learner', '127.0.0.1', b'lo\0'), ('ps', '10.0.0.11', b'')],
)
def test_a_run_within_one_machine_is_kept_to_loopback(job, host, device):
  server = server_of(job, 0, host)
  (listener,) = [
    c.fd
    for c in psutil.Process().net_connections('inet')
    if c.status == 'LISTEN' and c.laddr.port == port_of(server)
  ]
  with socket.socket(fileno=os.dup(listener)) as copy:
    assert copy.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16) == device
  assert answers(port_of(server), '127.0.0.1', '::1') == ['127.0.0.1', '::1']


def test_who_came_in_before_is_out_again():
  """The client's address is none of loopback."""
  own = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
  with own:
    own.connect(('192.0.2.1', 9))  # Nothing is sent.
    address = own.getsockname()[0]
  with socket.create_server((address, 0)) as listener:
    port = listener.getsockname()[1]
    with socket.create_connection((address, port), timeout=5) as early:
      accepted, _ = listener.accept()
      with accepted:
        listening.restrict(Cluster(('h:1',), ('h:2',), ('h:3',), 'actor', 0), port)
        assert early.recv(1) == b''


def test_where_the_port_stays_open_a_warning_says_so(caplog):
  listening.restrict(Cluster(('h:1',), ('h:2',), ('h:3',), 'actor', 0), free_ports(1)[0])
  assert 'actor:0: port ' in caplog.text and 'nobody needs to connect to an actor' in caplog.text
