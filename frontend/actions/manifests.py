"""The Kubernetes objects of a cluster: Jobs of equal tasks, a Service and NetworkPolicies.

Jobs rather than StatefulSets, since tasks end: a StatefulSet would restart them after training. The
pods of an indexed Job have stable names, as those of a StatefulSet.
"""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from frontend import cluster as cluster_lib
from frontend.cluster import Cluster, Task

PORT = 8000  # The same for every task, since each pod has its own address.
WORKDIR = '/srv/impala'  # As in the Dockerfile.
VOLUME = '/srv/runs'
USER = 1000  # As in the Dockerfile.
# From SIGTERM to SIGKILL: the chief saves a checkpoint, parameter servers wait 20 s for it.
GRACE_SECS = 120
FAILURES_PER_TASK = 20  # A Job gives up after as many times its number of tasks.
BAD_INPUT_EXIT = 2
DISK = '10Gi'
# Requests of a pod whose row has none. An idle task takes 0.7 GiB.
CPUS = {'ps': '1', 'learner': '2', 'actor': '1'}
MEMORY = {'ps': '2Gi', 'learner': '4Gi', 'actor': '2Gi'}
# Size limit of /tmp, which holds caches of libraries and pictures of environments.
TEMPORARY = '2Gi'
# The DNS servers: the cluster's, and the cache on each node.
_DNS = [
  {'namespaceSelector': {'matchLabels': {'kubernetes.io/metadata.name': 'kube-system'}}},
  {'ipBlock': {'cidr': '169.254.20.10/32'}},
]
# Training flags that the manifests set, besides those of placement.
OWN_FLAGS = ('cluster', 'logdir', 'on_sigterm')

Object = dict[str, Any]


class _Group(NamedTuple):
  """The tasks of one Job.

  Attributes:
    name: of the Job.
    tasks: equal but for their index.
    is_indexed: whether the Job numbers its pods.
  """

  name: str
  tasks: list[Task]
  is_indexed: bool


def manifests(
  name: str, image: str, cluster: Cluster, training_flags: Sequence[str]
) -> list[Object]:
  """Returns the objects of a run, in the order in which they are to be created.

  Args:
    name: of the run; a prefix of the names of all objects.
    image: of the tasks' containers.
    cluster: what the CSV describes.
    training_flags: arguments for every task.

  Returns:
    Service, two NetworkPolicies, Jobs. The volume is not among them: see `volume_claim`.
  """
  groups = _groups(name, cluster)
  addresses = {
    job: [f'{name}-{job}-{t.index}.{name}:{PORT}' for t in cluster.tasks if t.job == job]
    for job in cluster_lib.JOBS
  }
  return [
    _service(name),
    _policy_of_all(name),
    _policy_of_servers(name),
    *(_job(name, image, group, addresses, training_flags) for group in groups),
  ]


def _groups(name: str, cluster: Cluster) -> list[_Group]:
  """Tasks of one job share a Job if their rows are equal; each learner has its own.

  Only the chief mounts the volume, since only one node can mount it at a time.
  """
  found = []
  for job in cluster_lib.JOBS:
    tasks = [task for task in cluster.tasks if task.job == job]
    asked = {(t.cuda_visible_devices, t.cpus, t.memory, tuple(t.flags)) for t in tasks}
    if job != 'learner' and len(asked) == 1:
      found.append(_Group(f'{name}-{job}', tasks, True))
    else:
      found += [_Group(f'{name}-{cluster_lib.task_name(task)}', [task], False) for task in tasks]
  return found


def labels(name: str, job: str | None = None) -> dict[str, str]:
  """Returns the labels of a run's objects; with `job`, those of the tasks of that job."""
  found = {'app.kubernetes.io/name': 'impala', 'app.kubernetes.io/instance': name}
  return {**found, 'app.kubernetes.io/component': job} if job else found


def _object(
  api_version: str, kind: str, name: str, own_labels: dict[str, str], spec: Object
) -> Object:
  return {
    'apiVersion': api_version,
    'kind': kind,
    'metadata': {'name': name, 'labels': own_labels},
    'spec': spec,
  }


def _service(name: str) -> Object:
  """Gives each pod a name in DNS, even before it is ready, since tasks wait for each other."""
  spec = {
    'clusterIP': 'None',
    'publishNotReadyAddresses': True,
    'selector': labels(name),
    'ports': [{'name': 'tensorflow', 'port': PORT}],
  }
  return _object('v1', 'Service', name, labels(name), spec)


def _policy(name: str, pods: Object, spec: Object) -> Object:
  spec = {'podSelector': pods, 'policyTypes': list(spec), **{k.lower(): spec[k] for k in spec}}
  return _object('networking.k8s.io/v1', 'NetworkPolicy', name, labels(name), spec)


def _policy_of_all(name: str) -> Object:
  """Closes all pods of the run; they may connect to its servers and to DNS only."""
  port = [{'protocol': 'TCP', 'port': PORT}]
  names = [{'protocol': protocol, 'port': 53} for protocol in ('UDP', 'TCP')]
  egress = [
    {'to': [{'podSelector': _servers(name)}], 'ports': port},
    {'to': _DNS, 'ports': names},
  ]
  return _policy(name, {'matchLabels': labels(name)}, {'Ingress': [], 'Egress': egress})


def _policy_of_servers(name: str) -> Object:
  """Opens the servers to the run's pods only, since TensorFlow's server has no authentication.

  Actors stay closed: nobody needs to connect to them, and environments are third-party code.
  """
  ingress = [
    {
      'from': [{'podSelector': {'matchLabels': labels(name)}}],
      'ports': [{'protocol': 'TCP', 'port': PORT}],
    }
  ]
  made = _policy(name, _servers(name), {'Ingress': ingress})
  made['metadata']['name'] = f'{name}-servers'
  return made


def _servers(name: str) -> Object:
  """Selects the pods to which others connect."""
  jobs = {'key': 'app.kubernetes.io/component', 'operator': 'In', 'values': ['ps', 'learner']}
  return {'matchLabels': labels(name), 'matchExpressions': [jobs]}


def volume_claim(name: str) -> Object:
  """Returns the volume of a run, for a file of its own: deleting the run's objects keeps it."""
  spec = {'accessModes': ['ReadWriteOnce'], 'resources': {'requests': {'storage': DISK}}}
  return _object('v1', 'PersistentVolumeClaim', name, labels(name), spec)


def _job(
  name: str,
  image: str,
  group: _Group,
  addresses: dict[str, list[str]],
  training_flags: Sequence[str],
) -> Object:
  job = group.tasks[0].job
  count = len(group.tasks)
  spec = {
    'completions': count,
    'parallelism': count,
    'completionMode': 'Indexed' if group.is_indexed else 'NonIndexed',
    'backoffLimit': FAILURES_PER_TASK * count,
    'podFailurePolicy': {
      'rules': [
        {  # Bad flags stay bad.
          'action': 'FailJob',
          'onExitCodes': {'containerName': 'task', 'operator': 'In', 'values': [BAD_INPUT_EXIT]},
        },
        {  # The node was drained, or needed for others.
          'action': 'Ignore',
          'onPodConditions': [{'type': 'DisruptionTarget', 'status': 'True'}],
        },
      ]
    },
    'template': {
      'metadata': {'labels': labels(name, job)},
      'spec': _pod(name, image, group, addresses, training_flags),
    },
  }
  return _object('batch/v1', 'Job', group.name, labels(name, job), spec)


def _pod(
  name: str,
  image: str,
  group: _Group,
  addresses: dict[str, list[str]],
  training_flags: Sequence[str],
) -> Object:
  task = group.tasks[0]
  is_chief = cluster_lib.task_name(task) == 'learner-0'
  mounts = [{'name': 'tmp', 'mountPath': '/tmp'}]
  volumes = [{'name': 'tmp', 'emptyDir': {'sizeLimit': TEMPORARY}}]
  if is_chief:
    mounts.append({'name': 'runs', 'mountPath': VOLUME})
    volumes.append({'name': 'runs', 'persistentVolumeClaim': {'claimName': name}})
  own = ['--cluster=tf_config', f'--logdir={VOLUME}/{name}', '--on_sigterm=leave']
  # An indexed Job sets the host names of its pods itself: its own name and the index.
  place = {} if group.is_indexed else {'hostname': group.name}
  return {
    **place,
    'subdomain': name,
    'restartPolicy': 'Never',  # The Job replaces the pod.
    'terminationGracePeriodSeconds': GRACE_SECS,
    'automountServiceAccountToken': False,
    'enableServiceLinks': False,
    'securityContext': {
      'runAsNonRoot': True,
      'runAsUser': USER,
      'runAsGroup': USER,
      'fsGroup': USER,
      'seccompProfile': {'type': 'RuntimeDefault'},
    },
    'containers': [
      {
        'name': 'task',
        'image': image,
        'workingDir': WORKDIR,
        'command': ['python', 'experiment.py'],
        'args': [_literal(flag) for flag in [*training_flags, *task.flags, *own]],
        'env': _environment(task, group.is_indexed, addresses),
        'ports': [{'name': 'tensorflow', 'containerPort': PORT}],
        'resources': _resources(task),
        'securityContext': {
          'allowPrivilegeEscalation': False,
          'capabilities': {'drop': ['ALL']},
          'readOnlyRootFilesystem': True,
        },
        'volumeMounts': mounts,
      }
    ],
    'volumes': volumes,
  }


def _literal(text: str) -> str:
  """Escapes `$`, since Kubernetes replaces `$(NAME)` by the variable's value."""
  return text.replace('$', '$$')


def _environment(task: Task, is_indexed: bool, addresses: dict[str, list[str]]) -> list[Object]:
  found: list[Object] = []
  index: int | str = task.index
  if is_indexed:
    index = '$(TASK_INDEX)'
    path = "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    found.append({'name': 'TASK_INDEX', 'valueFrom': {'fieldRef': {'fieldPath': path}}})
  place = f'{{"type": "{task.job}", "index": {index}}}'
  config = f'{{"cluster": {json.dumps(addresses)}, "task": {place}}}'
  found.append({'name': 'TF_CONFIG', 'value': config})
  if task.cuda_visible_devices is not None:  # GPUs of a container are numbered from 0.
    devices = ','.join(map(str, range(_num_gpus(task))))
    found.append({'name': 'CUDA_VISIBLE_DEVICES', 'value': devices})
  return [*found, {'name': 'HOME', 'value': '/tmp'}]  # For caches of libraries.


def _num_gpus(task: Task) -> int:
  return len([gpu for gpu in (task.cuda_visible_devices or '').split(',') if gpu])


def _resources(task: Task) -> Object:
  requests = {'cpu': task.cpus or CPUS[task.job], 'memory': task.memory or MEMORY[task.job]}
  memory = {'memory': task.memory} if task.memory else {}
  gpus = {'nvidia.com/gpu': _num_gpus(task)} if _num_gpus(task) else {}
  found = {'requests': requests, 'limits': {**memory, **gpus}}
  return {kind: amounts for kind, amounts in found.items() if amounts}
