"""The pods of a written file of manifests as processes: each on a host of a network, by its name.

What Kubernetes would do is done here from the file alone: the pods of each Job and their names, the
environment with its variables filled in, user, read-only root file system, volumes. A pod has a
name in DNS once it is started, and another address each time.
"""

import os
import re
import signal
import sys

import yaml

from conftest import ROOT, eventually
from frontend.actions import manifests

LIMIT_SECS = 240.0
# $0: hostname; $1: folder of the network; then WORKDIR, the volume's place or '', the code; then
# what runs. The code and the volume lie where the image and the pod have them; nothing but the
# volume and /tmp, which is the host's own, can be written.
_AS_POD = """
set -e
hostname "$0"
folder=$1 workdir=$2 volume=$3 code=$4
shift 4
mount --bind "$folder/hosts" /etc/hosts
mount --bind "$folder/resolv.conf" /etc/resolv.conf
mount -t tmpfs none /srv
mkdir "$workdir"
mount --bind "$code" "$workdir"
mount -o remount,bind,ro "$workdir"
if test "$volume"; then mkdir "$volume"; mount --bind "$folder/volume" "$volume"; fi
mount -o remount,ro /srv
mount -o remount,bind,ro /
cd "$workdir"
exec "$@"
"""


def read(path):
  """The objects in a file of manifests."""
  with open(path, encoding='utf-8') as file:
    return list(yaml.safe_load_all(file))


def expanded(text, variables):
  """What Kubernetes makes of `$(NAME)` and `$$` in commands and in variables."""
  return re.sub(
    r'\$\$|\$\((\w+)\)',
    lambda m: '$' if m[0] == '$$' else variables.get(m[1], m[0]),
    text,
  )


class Pod:
  """One pod of a Job.

  Args:
    job: the Job, as in the file.
    index: its completion index.

  Attributes:
    host_name, domain_name: as the other pods know it.
    spec: of the pod.
    container: its only one.
  """

  def __init__(self, job, index):
    self.spec, self._index = job['spec']['template']['spec'], index
    is_indexed = job['spec']['completionMode'] == 'Indexed'
    indexed_name = f'{job["metadata"]["name"]}-{index}'
    self.host_name = indexed_name if is_indexed else self.spec['hostname']
    self.domain_name = f'{self.host_name}.{self.spec["subdomain"]}'
    (self.container,) = self.spec['containers']

  def environment(self):
    """{name: value} of the container."""
    found = {}
    for variable in self.container['env']:
      if 'valueFrom' in variable:
        path = variable['valueFrom']['fieldRef']['fieldPath']
        assert path == "metadata.annotations['batch.kubernetes.io/job-completion-index']"
        found[variable['name']] = str(self._index)
      else:
        found[variable['name']] = expanded(variable['value'], found)
    return found

  def command(self):
    """The command line of the container."""
    words = [*self.container['command'], *self.container.get('args', [])]
    return [expanded(word, self.environment()) for word in words]

  def mounted(self):
    """{kind of volume: where it is mounted}."""
    kinds = {v['name']: next(kind for kind in v if kind != 'name') for v in self.spec['volumes']}
    return {kinds[m['name']]: m['mountPath'] for m in self.container['volumeMounts']}


def pods_of(objects):
  """All pods of the Jobs, in their order."""
  return [
    Pod(job, index)
    for job in objects
    if job['kind'] == 'Job'
    for index in range(job['spec']['completions'])
  ]


class Pods:
  """The pods of a file on the hosts of a `network_fixtures.Network`, one on each.

  Args:
    processes: the fixture.
    hosts: the network.
    path: of the file.
    image: environment variables of the image.
  """

  def __init__(self, processes, hosts, path, image):
    self._processes, self._hosts, self._image = processes, hosts, image
    self.pods = {pod.host_name: pod for pod in pods_of(read(path))}
    assert len(self.pods) <= len(hosts.ADDRESSES)
    self._addresses, self._starts = {}, 0
    self.tasks = {}
    os.chmod(hosts.folder, 0o755)
    for name in ('hosts', 'resolv.conf'):
      with open(os.path.join(hosts.folder, name), 'w'):
        pass
    self._write_hosts()
    self.volume = os.path.join(hosts.folder, 'volume')
    os.makedirs(self.volume)
    groups = {pod.spec['securityContext']['fsGroup'] for pod in self.pods.values()}
    (group,) = groups
    os.chown(self.volume, 0, group)
    os.chmod(self.volume, 0o2775)

  def _write_hosts(self):
    """In place: the file is mounted in all pods."""
    lines = ['127.0.0.1 localhost', *(f'{a} {name}' for name, a in self._addresses.items())]
    with open(os.path.join(self._hosts.folder, 'hosts'), 'r+', encoding='utf-8') as file:
      file.truncate()
      file.write('\n'.join(lines) + '\n')

  def start(self, name):
    """Starts a pod, at an address that no pod had before."""
    pod, number = self.pods[name], list(self.pods).index(name)
    device = 'eth0' if number else 'br0'
    old = self._addresses.get(pod.domain_name)
    self._starts += 1
    new = f'10.0.0.{100 + self._starts}'
    if old:
      self._hosts.command(number, 'ip', 'addr', 'del', f'{old}/24', 'dev', device)
    self._hosts.command(number, 'ip', 'addr', 'add', f'{new}/24', 'dev', device)
    self._addresses[pod.domain_name] = new
    self._write_hosts()
    own = pod.container['securityContext']
    assert own['readOnlyRootFilesystem'] and not own['allowPrivilegeEscalation']
    assert own['capabilities'] == {'drop': ['ALL']}
    mounted = pod.mounted()
    assert mounted.pop('emptyDir') == '/tmp'
    variables = [f'{name}={value}' for name, value in {**self._image, **pod.environment()}.items()]
    self.tasks[name] = self._processes.start(
      *self._hosts.inside(number), 'unshare', '-u', '-m', 'sh', '-c', _AS_POD, pod.host_name,
      self._hosts.folder, pod.container['workingDir'], mounted.get('persistentVolumeClaim', ''),
      ROOT, *_as_user(pod.spec['securityContext']), 'env', '-i', *variables, *pod.command(),
      name=name,
    )  # fmt: skip
    return self.tasks[name]

  def end(self, name, number=signal.SIGTERM):
    """Sends a pod a signal; returns its exit code."""
    os.kill(self.tasks[name].pid, number)
    return self.tasks[name].exit_code(LIMIT_SECS)

  def until(self, predicate):
    """Waits until `predicate()` is true."""
    return eventually(predicate, LIMIT_SECS, self.logs)

  def logs(self):
    """What the pods said last."""
    return '\n'.join(f'--- {n}\n{t.output()[-4000:]}' for n, t in self.tasks.items())


def _as_user(context):
  """Words before a command that runs without root's rights, and can get none.

  The interpreter may lie in a folder of root, which nobody reads without being allowed to.
  """
  assert context['runAsNonRoot'] and context['runAsUser'] > 0
  kept = '-all,+dac_read_search'
  return [
    'setpriv', f'--reuid={context["runAsUser"]}', f'--regid={context["runAsGroup"]}',
    f'--groups={context["fsGroup"]}', f'--inh-caps={kept}', f'--ambient-caps={kept}',
    f'--bounding-set={kept}', '--no-new-privs',
  ]  # fmt: skip


def image_environment(**more):
  """Environment of an image whose `python` is this one."""
  path = f'{os.path.dirname(sys.executable)}:/usr/bin:/bin'
  tests = os.path.join(manifests.WORKDIR, 'tests')
  return {'PATH': path, 'PYTHONPATH': tests, **more}
