"""The manifests: valid by Kubernetes' own schemas, closed, and what they take from the CSV."""

import json
import os
import re

import kubernetes_validate
import pytest
from kubernetes_validate.utils import all_versions

import frontend_fixtures
from conftest import ROOT
from frontend import checkout, cluster_csv
from frontend.actions import kubernetes, manifests
from pod_fixtures import Pod, pods_of, read

CSV = """job,cpus,memory,cuda_visible_devices,flags
ps,1,2Gi
learner,4,8Gi,"0,1"
learner,4,8Gi,3
actor,500m,4Gi,,--envs_per_actor=8
actor,500m,4Gi,,--envs_per_actor=8
actor,500m,4Gi,,--envs_per_actor=4
"""
FLAGS = ['--level_name=$(HOME)', '--it\'s="a: #b"', '--no', '--x=😀\\', '--y=$$']


def made(text=CSV, flags=()):
  described = cluster_csv.parse_cluster(text, 'c.csv', with_hosts=False)
  return manifests.manifests('catch', 'example.org/impala:1', described, list(flags))


def written(objects, tmp_path):
  path = tmp_path / 'a.yaml'
  path.write_text(kubernetes.as_yaml(objects, ['a comment']), encoding='utf-8')
  return read(path)


# Older schemas want `onPodConditions` beside `onExitCodes`, against the documentation.
@pytest.mark.parametrize(
  'version', [v for v in dict.fromkeys(all_versions()) if int(v.split('.')[1]) >= 29]
)
def test_the_file_is_valid_by_the_schemas_of_kubernetes(version, tmp_path):
  objects = [*made(), manifests.volume_claim('catch')]
  values = written(objects, tmp_path)
  assert len(values) == len(objects) > 3
  for value in values:
    kubernetes_validate.validate(value, version, strict=True)  # Raises.


def test_what_yaml_reads_is_what_was_meant(tmp_path):
  odd = [
    '',
    'yes',
    'No',
    'null',
    '1',
    '1e3',
    '0x1',
    '~',
    '- a',
    'a: b',
    '#',
    "'",
    '"',
    '\\n',
    '{',
    '😀',
  ]
  value = {'a': odd, 'b': [{'c': [], 'd': {}}, [1, [True, None]]], 'on': 'y', 'e/f.g': -1}
  assert written([value, {'x': 1}], tmp_path) == [value, {'x': 1}]


def test_words_that_some_reader_of_yaml_takes_for_something_else_have_quotes_and_nothing_an_alias():
  same = ['1e3', 'y', '0o17', 'a.b/c-d']
  text = kubernetes.as_yaml([{'a': same, 'b': same}], [])
  assert text == '---\n' + ''.join(f'{key}:\n- "1e3"\n- "y"\n- "0o17"\n- a.b/c-d\n' for key in 'ab')


def test_rows_that_ask_for_the_same_share_a_job_and_each_learner_has_its_own():
  jobs = {o['metadata']['name']: o['spec'] for o in made() if o['kind'] == 'Job'}
  assert {name: spec['completions'] for name, spec in jobs.items()} == {
    'catch-ps': 1, 'catch-learner-0': 1, 'catch-learner-1': 1,
    'catch-actor-0': 1, 'catch-actor-1': 1, 'catch-actor-2': 1,
  }  # fmt: skip
  alike = CSV.replace('=4\n', '=8\n').replace('"0,1"', '3')
  jobs = {o['metadata']['name']: o['spec'] for o in made(alike) if o['kind'] == 'Job'}
  assert {name: spec['completions'] for name, spec in jobs.items()} == {
    'catch-ps': 1, 'catch-learner-0': 1, 'catch-learner-1': 1, 'catch-actor': 3,
  }  # fmt: skip
  assert jobs['catch-actor']['completionMode'] == 'Indexed'


@pytest.mark.parametrize('text', [CSV, CSV.replace('=4\n', '=8\n')], ids=['apart', 'together'])
def test_each_pod_is_told_its_place_and_has_the_name_that_the_others_know(text):
  pods = pods_of(made(text))
  configs = [json.loads(pod.environment()['TF_CONFIG']) for pod in pods]
  assert len({json.dumps(config['cluster']) for config in configs}) == 1
  for pod, config in zip(pods, configs):
    job, index = config['task']['type'], config['task']['index']
    assert config['cluster'][job][index] == f'{pod.domain_name}:{manifests.PORT}'
    assert len({json.dumps(c['task']) for c in configs}) == len(pods) == 6


def test_flags_reach_the_task_as_they_were_written(tmp_path):
  jobs = [o for o in written(made(flags=FLAGS), tmp_path) if o['kind'] == 'Job']
  command = Pod(jobs[-1], 0).command()
  assert command[:2] == ['python', 'experiment.py']
  assert command[2:-3] == [*FLAGS, '--envs_per_actor=4']


def test_gpus_cores_and_memory_are_those_of_the_row():
  resources = {p.host_name: (p.container['resources'], p.environment()) for p in pods_of(made())}
  asked, environment = resources['catch-learner-0']
  assert asked == {
    'requests': {'cpu': '4', 'memory': '8Gi'}, 'limits': {'memory': '8Gi', 'nvidia.com/gpu': 2},
  }  # fmt: skip
  # A container numbers its own.
  assert environment['CUDA_VISIBLE_DEVICES'] == '0,1'
  asked, environment = resources['catch-actor-2']
  assert asked == {'requests': {'cpu': '500m', 'memory': '4Gi'}, 'limits': {'memory': '4Gi'}}
  assert environment['CUDA_VISIBLE_DEVICES'] == ''


def test_a_pod_whose_row_asks_for_nothing_still_has_its_share_of_a_node():
  """Without requests a pod is the first to be ended, and is put on a node that is full."""
  for pod in pods_of(made('job\nps\nlearner\nactor\n')):
    asked = pod.container['resources']
    assert asked['requests']['cpu'] and asked['requests']['memory'].endswith('Gi')
    assert 'limits' not in asked


def test_service_and_policies_are_about_the_pods_of_this_run_and_the_chief_has_the_volume():
  service, *policies = [o for o in made() if o['kind'] != 'Job']
  claim = manifests.volume_claim('catch')
  for job in (o for o in made() if o['kind'] == 'Job'):
    pod = job['spec']['template']
    assert service['spec']['selector'].items() <= pod['metadata']['labels'].items()
    assert pod['spec']['subdomain'] == service['metadata']['name']
    volumes = {v.pop('name'): v for v in pod['spec']['volumes']}
    assert volumes.pop('tmp') == {'emptyDir': {'sizeLimit': manifests.TEMPORARY}}
    runs = {'persistentVolumeClaim': {'claimName': claim['metadata']['name']}}
    is_chief = job['metadata']['name'] == 'catch-learner-0'
    assert volumes == ({'runs': runs} if is_chief else {})
  assert service['spec']['clusterIP'] == 'None' and service['spec']['publishNotReadyAddresses']
  assert {o['kind'] for o in policies} == {'NetworkPolicy'}


def selects(selector, found):
  """Whether a selector of Kubernetes takes in a pod with these labels."""
  return selector.get('matchLabels', {}).items() <= found.items() and all(
    found.get(one['key']) in one['values'] for one in selector.get('matchExpressions', ())
  )


def allowed(policies, direction, pod, other):
  """Whether the policies let a pod receive from, or send to, another one; ports aside."""
  key = {'Ingress': 'from', 'Egress': 'to'}[direction]
  specs = [policy['spec'] for policy in policies if direction in policy['spec']['policyTypes']]
  about = [spec for spec in specs if selects(spec['podSelector'], pod)]
  assert about, 'a pod that no policy is about is open'
  peers = [peer for spec in about for rule in spec[direction.lower()] for peer in rule[key]]
  return any('podSelector' in peer and selects(peer['podSelector'], other) for peer in peers)


def test_who_reaches_whom():
  policies = [o for o in made() if o['kind'] == 'NetworkPolicy']
  pods = {job: manifests.labels('catch', job) for job in ('ps', 'learner', 'actor')}
  pods |= {'stranger': {'app': 'web'}, 'other run': manifests.labels('other', 'learner')}
  ours = ('ps', 'learner', 'actor')
  reached = {
    (a, b) for a in pods for b in ours
    if allowed(policies, 'Ingress', pods[b], pods[a])
    and (a not in ours or allowed(policies, 'Egress', pods[a], pods[b]))
  }  # fmt: skip
  assert reached == {(a, b) for a in ours for b in ('ps', 'learner')}
  for job in ours:  # What an environment runs gets no further.
    assert not allowed(policies, 'Egress', pods[job], pods['stranger'])
    assert not allowed(policies, 'Egress', pods[job], pods['other run'])
  ports = [rule['ports'] for p in policies for rule in p['spec'].get('egress', ())]
  assert ports == [[{'protocol': 'TCP', 'port': 8000}],
                   [{'protocol': 'UDP', 'port': 53}, {'protocol': 'TCP', 'port': 53}]]  # fmt: skip


def test_the_image_is_what_the_manifests_expect():
  with open(os.path.join(ROOT, 'Dockerfile'), encoding='utf-8') as file:
    lines = file.read().splitlines()
  assert f'WORKDIR {manifests.WORKDIR}' in lines
  assert f'USER {manifests.USER}:{manifests.USER}' in lines
  with open(os.path.join(ROOT, '.dockerignore'), encoding='utf-8') as file:
    rules = [line.strip() for line in file if line.strip() and not line.startswith('#')]
  # Nothing is in it but what is named, and what is named is all that makes up the code.
  assert rules[0] == '*'
  named = {rule[1:] for rule in rules if rule.startswith('!')}
  needed = {name.partition('/')[0] for name in checkout.source_files(ROOT)}
  needed = {'*.py' if name.endswith('.py') else name for name in needed} - {'tests', 'benchmarks'}
  assert named == needed | {'flagfiles', 'suites', 'requirements.lock', 'LICENSE', 'NOTICE'}
  copied = [line.split()[1] for line in lines if line.startswith('COPY ')]
  assert copied == ['requirements.lock', '.']
  assert any('--require-hashes -r requirements.lock' in line for line in lines)


def write(tmp_path, *words, text=CSV):
  (tmp_path / 'c.csv').write_text(text)
  words = ['--action=kubernetes', '--level_name=impala/Catch-v0', *words]
  return frontend_fixtures.frontend(['--cluster_csv_path=c.csv', *words], cwd=tmp_path)


IMAGE = '--image=example.org/impala:1'


@pytest.mark.slow
@pytest.mark.parametrize(
  'words, text, sentence',
  [
    ([], CSV, '--image is missing: the image that the Dockerfile makes'),
    (['--image=a b'], CSV, "--image='a b' is not the name of an image"),
    ([IMAGE, '--name=Catch'], CSV, "--name='Catch' is no name for objects of Kubernetes"),
    ([IMAGE], '', 'c.csv is empty; its first line is job,'),
    ([IMAGE], 'job\nps\nlearner\n', 'c.csv: no row has job actor'),
    ([IMAGE], 'job\nps\nlearner\nlearner\nactor\n', 'the CSV has 2 learners, but only 1 actors'),
    ([IMAGE], CSV.replace('500m', 'two', 1), "column cpus: 'two' is not a number of cores"),
    ([IMAGE], CSV.replace('2Gi', '2G', 1), "column memory: '2G' is not an amount of memory"),
    ([IMAGE, '--logdir=x'], CSV, '--logdir is decided by --action=kubernetes'),
    ([IMAGE, '--learning_rate=-1'], CSV, '--learning_rate=-1 is not a positive number'),
    (['--action=plan', IMAGE], CSV, '--image belongs to kubernetes, not to plan'),
  ],
)
def test_bad_input_is_one_sentence_and_exit_2_and_nothing_is_written(
  words, text, sentence, tmp_path
):
  result = write(tmp_path, *words, text=text)
  assert result.returncode == 2 and sentence in result.stderr, result.stderr
  assert len(result.stderr.strip().splitlines()) == 1
  assert not (tmp_path / 'kubernetes').exists()


def test_a_folder_that_cannot_be_written(tmp_path):
  (tmp_path / 'kubernetes').touch()
  result = write(tmp_path, IMAGE)
  assert result.returncode == 2
  assert 'kubernetes/impala.yaml cannot be written: File exists' in result.stderr


def test_the_commands_that_are_printed_name_the_file_and_the_labels(tmp_path):
  result = write(tmp_path, IMAGE, '--name=catch')
  assert result.returncode == 0, result.stderr
  (path,) = set(re.findall(r'kubectl apply -f (\S+)', result.stdout))
  objects = read(tmp_path / path)
  (label,) = re.findall(r'kubectl delete jobs -l (\S+)', result.stdout)
  name, value = label.split('=')
  assert all(o['metadata']['labels'][name] == value for o in objects)


def test_deleting_the_run_leaves_its_volume_and_a_tag_is_remarked_on(tmp_path):
  result = write(tmp_path, IMAGE, '--name=catch')
  assert result.returncode == 0, result.stderr
  kinds = {o['kind'] for o in read(tmp_path / 'kubernetes' / 'catch.yaml')}
  assert 'Job' in kinds and 'PersistentVolumeClaim' not in kinds
  (volume,) = read(tmp_path / 'kubernetes' / 'catch.volume.yaml')
  assert volume == manifests.volume_claim('catch')
  assert 'kubectl delete -f kubernetes/catch.yaml    (the volume stays)\n' in result.stdout
  assert '--image=example.org/impala:1@sha256:... means one for good' in result.stdout
  pinned = write(tmp_path, IMAGE + '@sha256:' + 64 * '0', '--name=catch')
  assert pinned.returncode == 0 and 'for good' not in pinned.stdout
