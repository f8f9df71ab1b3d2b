"""`kubernetes`: writes the cluster's manifests. It touches no host and no Kubernetes cluster."""

import os
import re
from collections.abc import Sequence
from typing import Any

import yaml

from frontend.actions import manifests
from frontend.cluster import Cluster, actors_problem
from frontend.console import Console
from frontend.errors import UserError

FOLDER = 'kubernetes'


def run(console: Console) -> int:
  """Writes NAME.yaml and NAME.volume.yaml and prints how to use them; returns the exit code.

  Raises:
    UserError: bad input, or a file cannot be written.
  """
  name, image = console.options.name, console.options.image
  _check_names(name, image)
  _check_flags(console.cluster, console.training_flags)
  problem = actors_problem(console.cluster)
  if problem:
    raise UserError(problem)
  objects = manifests.manifests(name, image, console.cluster, console.training_flags)
  path, volume = (os.path.join(FOLDER, f'{name}{suffix}.yaml') for suffix in ('', '.volume'))
  _write(path, objects, f'A run as Jobs of Kubernetes: kubectl apply -f {path} -f {volume}')
  _write(volume, [manifests.volume_claim(name)], 'The volume of a run, which outlives its Jobs.')
  jobs = sum(one['kind'] == 'Job' for one in objects)
  console.say(
    f'{path}: {len(console.cluster.tasks)} tasks in {jobs} Jobs, with Service and NetworkPolicies; '
    f'{volume}: a volume of {manifests.DISK}\n'
    f'start:   kubectl apply -f {path} -f {volume}\n'
    f'watch:   kubectl logs -f job/{name}-learner-0\n'
    f'stop:    kubectl delete jobs -l app.kubernetes.io/instance={name}\n'
    f'go on:   kubectl apply -f {path} -f {volume}\n'
    f'remove:  kubectl delete -f {path}    (the volume stays)\n'
    f'         kubectl delete -f {volume}    (the volume, and the run on it)'
  )
  if '@sha256:' not in image:
    console.say(
      f'note: the tag of {image} may mean another image tomorrow, and pods that are replaced would '
      f'run it; --image={image.partition("@")[0]}@sha256:... means one for good (docker push '
      'prints it)'
    )
  return 0


# ---- YAML. ---------------------------------------------------------------------------------------

# Strings without quotes. PyYAML would leave out more of them, but other readers, such as kubectl's,
# take 1e3 or y for a number or a truth value.
_PLAIN = re.compile(r'[A-Za-z/][A-Za-z0-9_./-]*')
_NOT_PLAIN = {'true', 'false', 'yes', 'no', 'on', 'off', 'y', 'n', 'null'}


class _Dumper(yaml.SafeDumper):
  """Quotes strings unless every reader of YAML takes them for strings; writes no aliases."""

  def ignore_aliases(self, data: Any) -> bool:
    """Repeats a value that occurs twice, since people edit the file."""
    return True


def _represent_str(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
  if _PLAIN.fullmatch(text) and text.lower() not in _NOT_PLAIN:
    style = None
  else:
    style = "'" if '"' in text else '"'  # JSON stays readable.
  return dumper.represent_scalar('tag:yaml.org,2002:str', text, style)


_Dumper.add_representer(str, _represent_str)


def as_yaml(objects: Sequence[dict[str, Any]], comment: Sequence[str]) -> str:
  """Returns the objects as YAML documents.

  Args:
    objects: dicts of str, int, bool, None, lists and dicts.
    comment: lines for the top of the text.
  """
  text = yaml.dump_all(
    objects,
    Dumper=_Dumper,
    explicit_start=True,
    sort_keys=False,
    allow_unicode=True,
    default_flow_style=False,
    width=float('inf'),
  )
  return ''.join(f'# {line}\n' for line in comment) + text


def _write(path: str, objects: Sequence[dict[str, Any]], comment: str) -> None:
  note = 'Written by --action=kubernetes, and anew each time: the CSV says what is in here.'
  try:
    os.makedirs(FOLDER, exist_ok=True)
    with open(path, 'w', encoding='utf-8') as file:
      file.write(as_yaml(objects, [comment, note]))
  except OSError as error:
    raise UserError(f'{path} cannot be written: {error.strerror}') from None


# ---- Input. --------------------------------------------------------------------------------------


def _check_names(name: str, image: str) -> None:
  if not re.fullmatch(r'[a-z]([a-z0-9-]{0,38}[a-z0-9])?', name):
    raise UserError(
      f'--name={name!r} is no name for objects of Kubernetes: at most 40 lower-case letters, '
      'digits and -, a letter first'
    )
  if not image:
    raise UserError(
      '--image is missing: the image that the Dockerfile makes, at the registry from which nodes '
      'fetch it, for example --image=registry.example.org/impala:1'
    )
  if not re.fullmatch(r'[A-Za-z0-9][A-Za-z0-9._:/@-]*', image):
    raise UserError(f'--image={image!r} is not the name of an image, such as example.org/impala:1')


def _check_flags(cluster: Cluster, training_flags: Sequence[str]) -> None:
  for argument in [*training_flags, *(flag for task in cluster.tasks for flag in task.flags)]:
    if not argument.isprintable():
      raise UserError(f'{argument!r} holds a character that cannot be printed')
    name = argument.lstrip('-').split('=')[0] if argument.startswith('-') else ''
    if name in manifests.OWN_FLAGS:
      raise UserError(
        f'--{name} is decided by --action=kubernetes and cannot be given as well: the run is in '
        f'{manifests.VOLUME} on its volume, and TF_CONFIG says who is who'
      )
