"""A cluster as objects of Kubernetes: a Job for tasks that are alike, and what they share.

Jobs and not StatefulSets, because tasks end: a StatefulSet would start each again after the end of
training, for ever. An indexed Job gives its pods names that stay, as a StatefulSet does.
"""

import collections
import json

from frontend import cluster as cluster_lib

PORT = 8000  # Of every task: each pod has an address of its own.
WORKDIR = '/srv/impala'  # As in the Dockerfile.
VOLUME = '/srv/runs'
USER = 1000  # As in the Dockerfile.
# A parameter server waits 20 s for the chief's last checkpoint; the chief, as long as it needs.
GRACE_SECS = 120
FAILURES_PER_TASK = 20  # After so many a Job gives up.
BAD_INPUT_EXIT = 2
DISK = '10Gi'
# What a pod asks for where its row does not say. A task takes 0.7 GiB before it does anything.
CPUS = {'ps': '1', 'learner': '2', 'actor': '1'}
MEMORY = {'ps': '2Gi', 'learner': '4Gi', 'actor': '2Gi'}
# Of /tmp: caches of libraries, and pictures of environments.
TEMPORARY = '2Gi'
# Where names are asked for: in the cluster, and by a cache on the node.
_DNS = [
  {'namespaceSelector': {'matchLabels': {'kubernetes.io/metadata.name': 'kube-system'}}},
  {'ipBlock': {'cidr': '169.254.20.10/32'}},
]
# What the manifests decide, besides the places of tasks.
OWN_FLAGS = ('cluster', 'logdir', 'on_sigterm')

# name: of a Job; tasks: of the CSV, alike if there are several.
_Group = collections.namedtuple('_Group', 'name tasks is_indexed')


def manifests(name, image, cluster, training_flags):
  """The objects of a run, in the order in which they are to be made.

  Args:
    name: str, of the run; begins the names of all objects.
    image: str, of the tasks' containers.
    cluster: a Cluster.
    training_flags: list of arguments for every task.

  Returns:
    List of dicts: Service, two NetworkPolicies, Jobs. The volume is apart: see `volume_claim`.
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


def _groups(name, cluster):
  """Tasks of a job share a Job where their rows ask for the same; each learner has its own.

  The chief alone has the volume, which only one node can hold at a time.
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


def labels(name, job=None):
  """The labels of a run's objects, and with `job` those of its tasks."""
  found = {'app.kubernetes.io/name': 'impala', 'app.kubernetes.io/instance': name}
  return {**found, 'app.kubernetes.io/component': job} if job else found


def _object(api_version, kind, name, own_labels, spec):
  return {
    'apiVersion': api_version,
    'kind': kind,
    'metadata': {'name': name, 'labels': own_labels},
    'spec': spec,
  }


def _service(name):
  """Gives each pod a name in DNS, also before it is ready: tasks wait for each other."""
  spec = {
    'clusterIP': 'None',
    'publishNotReadyAddresses': True,
    'selector': labels(name),
    'ports': [{'name': 'tensorflow', 'port': PORT}],
  }
  return _object('v1', 'Service', name, labels(name), spec)


def _policy(name, pods, spec):
  spec = {'podSelector': pods, 'policyTypes': list(spec), **{k.lower(): spec[k] for k in spec}}
  return _object('networking.k8s.io/v1', 'NetworkPolicy', name, labels(name), spec)


def _policy_of_all(name):
  """No pod of this run is reached, and none reaches more than its servers and their names."""
  port = [{'protocol': 'TCP', 'port': PORT}]
  names = [{'protocol': protocol, 'port': 53} for protocol in ('UDP', 'TCP')]
  egress = [
    {'to': [{'podSelector': _servers(name)}], 'ports': port},
    {'to': _DNS, 'ports': names},
  ]
  return _policy(name, {'matchLabels': labels(name)}, {'Ingress': [], 'Egress': egress})


def _policy_of_servers(name):
  """TensorFlow's server asks nobody for a password: only pods of this run reach it.

  Nobody connects to an actor, whose environments are somebody else's code.
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


def _servers(name):
  """Selects the pods to which others connect."""
  jobs = {'key': 'app.kubernetes.io/component', 'operator': 'In', 'values': ['ps', 'learner']}
  return {'matchLabels': labels(name), 'matchExpressions': [jobs]}


def volume_claim(name):
  """The volume of a run; in a file of its own, so that whoever deletes the run keeps it."""
  spec = {'accessModes': ['ReadWriteOnce'], 'resources': {'requests': {'storage': DISK}}}
  return _object('v1', 'PersistentVolumeClaim', name, labels(name), spec)


def _job(name, image, group, addresses, training_flags):
  job = group.tasks[0].job
  count = len(group.tasks)
  spec = {
    'completions': count,
    'parallelism': count,
    'completionMode': 'Indexed' if group.is_indexed else 'NonIndexed',
    'backoffLimit': FAILURES_PER_TASK * count,
    'podFailurePolicy': {
      'rules': [
        {  # It stays bad.
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


def _pod(name, image, group, addresses, training_flags):
  task = group.tasks[0]
  is_chief = cluster_lib.task_name(task) == 'learner-0'
  mounts = [{'name': 'tmp', 'mountPath': '/tmp'}]
  volumes = [{'name': 'tmp', 'emptyDir': {'sizeLimit': TEMPORARY}}]
  if is_chief:
    mounts.append({'name': 'runs', 'mountPath': VOLUME})
    volumes.append({'name': 'runs', 'persistentVolumeClaim': {'claimName': name}})
  own = ['--cluster=tf_config', f'--logdir={VOLUME}/{name}', '--on_sigterm=leave']
  # The name of an indexed Job's pod is the Job's with the index behind it.
  place = {} if group.is_indexed else {'hostname': group.name}
  return {
    **place,
    'subdomain': name,
    'restartPolicy': 'Never',  # The Job makes another pod in its place.
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


def _literal(text):
  """Text in which Kubernetes replaces nothing: `$(NAME)` would be a variable."""
  return text.replace('$', '$$')


def _environment(task, is_indexed, addresses):
  found, index = [], task.index
  if is_indexed:
    index = '$(TASK_INDEX)'
    path = "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    found.append({'name': 'TASK_INDEX', 'valueFrom': {'fieldRef': {'fieldPath': path}}})
  place = f'{{"type": "{task.job}", "index": {index}}}'
  config = f'{{"cluster": {json.dumps(addresses)}, "task": {place}}}'
  found.append({'name': 'TF_CONFIG', 'value': config})
  if task.cuda_visible_devices is not None:  # A container numbers its GPUs from 0.
    devices = ','.join(map(str, range(_num_gpus(task))))
    found.append({'name': 'CUDA_VISIBLE_DEVICES', 'value': devices})
  return [*found, {'name': 'HOME', 'value': '/tmp'}]  # Libraries keep caches there.


def _num_gpus(task):
  return len([gpu for gpu in (task.cuda_visible_devices or '').split(',') if gpu])


def _resources(task):
  requests = {'cpu': task.cpus or CPUS[task.job], 'memory': task.memory or MEMORY[task.job]}
  memory = {'memory': task.memory} if task.memory else {}
  gpus = {'nvidia.com/gpu': _num_gpus(task)} if _num_gpus(task) else {}
  found = {'requests': requests, 'limits': {**memory, **gpus}}
  return {kind: amounts for kind, amounts in found.items() if amounts}
