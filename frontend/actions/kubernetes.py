"""`kubernetes`: the cluster of a CSV as a file of manifests. It touches no host and no cluster."""

import os
import re

from frontend import cluster as cluster_lib
from frontend import yaml_text
from frontend.actions import manifests

FOLDER = 'kubernetes'


def write_manifests(console):
  """Writes NAME.yaml and NAME.volume.yaml, and says what to do with them; returns the exit code.

  Raises:
    ValueError: bad input, or a file cannot be written.
  """
  name, image = console.options.name, console.options.image
  _check_names(name, image)
  _check_flags(console.cluster, console.training_flags)
  _check_numbers(console.cluster)
  made = manifests.manifests(name, image, console.cluster, console.training_flags)
  path, volume = (os.path.join(FOLDER, f'{name}{suffix}.yaml') for suffix in ('', '.volume'))
  _write(path, made, f'A run as Jobs of Kubernetes: kubectl apply -f {path} -f {volume}')
  _write(volume, [manifests.volume_claim(name)], 'The volume of a run, which outlives its Jobs.')
  jobs = sum(made_one['kind'] == 'Job' for made_one in made)
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


def _write(path, objects, comment):
  comment = [
    comment,
    'Written by --action=kubernetes, and anew each time: the CSV says what is in here.',
  ]
  try:
    os.makedirs(FOLDER, exist_ok=True)
    with open(path, 'w', encoding='utf-8') as file:
      file.write(yaml_text.documents(objects, comment))
  except OSError as error:
    raise ValueError(f'{path} cannot be written: {error.strerror}') from None


def _check_names(name, image):
  if not re.fullmatch(r'[a-z]([a-z0-9-]{0,38}[a-z0-9])?', name):
    raise ValueError(
      f'--name={name!r} is no name for objects of Kubernetes: at most 40 lower-case letters, '
      'digits and -, a letter first'
    )
  if not image:
    raise ValueError(
      '--image is missing: the image that the Dockerfile makes, at the registry from which nodes '
      'fetch it, for example --image=registry.example.org/impala:1'
    )
  if not re.fullmatch(r'[A-Za-z0-9][A-Za-z0-9._:/@-]*', image):
    raise ValueError(f'--image={image!r} is not the name of an image, such as example.org/impala:1')


def _check_flags(cluster, training_flags):
  for argument in [*training_flags, *(flag for task in cluster.tasks for flag in task.flags)]:
    if not argument.isprintable():
      raise ValueError(f'{argument!r} holds a character that cannot be printed')
    name = argument.lstrip('-').split('=')[0] if argument.startswith('-') else ''
    if name in manifests.OWN_FLAGS:
      raise ValueError(
        f'--{name} is decided by --action=kubernetes and cannot be given as well: the run is in '
        f'{manifests.VOLUME} on its volume, and TF_CONFIG says who is who'
      )


def _check_numbers(cluster):
  learners, actors = (
    sum(task.job == job for task in cluster.tasks) for job in cluster_lib.JOBS[1:]
  )
  if actors < learners:
    raise ValueError(
      f'the CSV has {learners} learners, but only {actors} actors: every learner needs an actor of '
      'its own'
    )
