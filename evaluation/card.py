"""Writes the MODEL_CARD.md of an export: the policy, its training, and its scores.

It starts with the YAML metadata that model hubs read. Its pictures are copied beside it.
"""

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

import config
from common import suites
from common.declarations import is_own_code
from evaluation import records
from reporting import commands, curves

NAME = 'MODEL_CARD.md'
_FILMS = ('video.webp', 'video.webm')


def write(
  folder: str,
  logdir: str,
  policy: Mapping[str, Any],
  record: Mapping[str, Any],
  defaults: Mapping[str, Any],
) -> None:
  """Writes MODEL_CARD.md and copies the curve, the evaluations and the film of the run beside it.

  Args:
    folder: folder of the export.
    logdir: folder of the run.
    policy: contents of policy.json.
    record: contents of the run's run.json, or {}.
    defaults: default values of all flags of experiment.py.

  Raises:
    BadInput: evaluation.json is no list of evaluations.
    OSError: a file cannot be read or written.
  """
  evaluations = records.read(logdir)
  if evaluations:
    shutil.copy(os.path.join(logdir, 'evaluation.json'), folder)
  films = [name for name in _FILMS if os.path.exists(os.path.join(logdir, name))]
  for name in films:
    shutil.copy(os.path.join(logdir, name), folder)
  parts = [
    _metadata(policy, evaluations),
    _summary(policy, record),
    _evaluations(policy, evaluations),
    _curve(folder, logdir),
    _film(films),
    _use(policy),
    _training(policy, record, defaults),
    f'## Licence\n\n{policy["licence"]}\n',
  ]
  with open(os.path.join(folder, NAME), 'w', encoding='utf-8') as file:
    file.write('\n'.join(part for part in parts if part))


def changed_flags(
  policy: Mapping[str, Any], command: commands.Command, defaults: Mapping[str, Any]
) -> dict[str, Any]:
  """Returns the flags of a start that differ from their defaults; level and agent come first.

  Args:
    policy, defaults: see `write`.
    command: a command that started the run.
  """
  changed = {
    name: value
    for name, value in command.flags.items()
    if name in defaults and value != defaults[name]
  }
  return {'level_name': policy['level_name'], 'agent_name': policy['agent_name'], **changed}


def _metadata(policy: Mapping[str, Any], evaluations: Sequence[Mapping[str, Any]]) -> str:
  """Returns the YAML block, with the fields of Hugging Face's model cards."""
  level, task = policy['level_name'], 'reinforcement-learning'
  metadata: dict[str, Any] = {
    'license': policy['licence'].lower(),
    'tags': [task, 'deep-reinforcement-learning', 'impala', level],
  }
  own = [e for e in evaluations if e.get('checkpoint') == policy['checkpoint']]
  if own:
    mean_reward = f'{own[0]["mean"]:.2f} +/- {own[0]["std"]:.2f}'
    result = {
      'task': {'type': task, 'name': task},
      'dataset': {'name': level, 'type': level},
      'metrics': [
        {'type': 'mean_reward', 'name': 'mean_reward', 'value': mean_reward, 'verified': False}
      ],
    }
    metadata['model-index'] = [{'name': policy['agent_name'], 'results': [result]}]
  return f'---\n{yaml.safe_dump(metadata, sort_keys=False)}---\n'


def _summary(policy: Mapping[str, Any], record: Mapping[str, Any]) -> str:
  frames, versions = policy['environment_frames'], record.get('versions') or {}
  trained = '' if frames is None else f' for {frames:,} environment frames'
  tensorflow, commit = (
    _cell(str(v or '')) for v in (versions.get('tensorflow'), record.get('git_commit'))
  )
  by = f', with TensorFlow {tensorflow}' if tensorflow else ''
  commit = f' Commit of the code: {commit}.' if commit else ''
  return (
    f'# {policy["agent_name"]} on {policy["level_name"]}\n\n'
    f'Trained{trained} with IMPALA (https://arxiv.org/abs/1802.01561){by}; the checkpoint is '
    f'`{policy["checkpoint"]}`.{commit}{_own_network(policy["agent_name"])}\n'
  )


def _own_network(agent_name: str) -> str:
  """Returns where a network of the user's was defined, as a sentence, or ''."""
  if not is_own_code(agent_name):
    return ''
  module, _, name = agent_name.partition(':')
  return (
    f' Its network is `{name}` of the module `{module}`, which is no part of the code that trained '
    'it; to play the exported model, neither is needed.'
  )


def _evaluations(policy: Mapping[str, Any], evaluations: Sequence[Mapping[str, Any]]) -> str:
  rows = [_evaluation_row(e, e.get('checkpoint') == policy['checkpoint']) for e in evaluations]
  if not rows:
    return '## Evaluations\n\nIt was not evaluated.\n'
  header = (
    '| frames of the checkpoint | protocol | actions | games | mean (95% interval) | median | '
    'human-normalised |\n| --- | --- | --- | --- | --- | --- | --- |'
  )
  note = 'The newest first; those of this checkpoint are bold. `evaluation.json` has every return.'
  return '\n'.join(['## Evaluations', '', header, *rows, '', note, ''])


def _evaluation_row(entry: Mapping[str, Any], is_bold: bool) -> str:
  bold = '**' if is_bold else ''
  low, high = entry.get('mean_interval_95') or (None, None)
  normalised = entry.get('human_normalised_score')
  cells = [
    _cell(str(entry.get('checkpoint_frames', entry.get('checkpoint', '')))),
    _cell(str(entry.get('protocol', 'training'))),
    'likeliest' if entry.get('deterministic') else 'sampled',
    str(len(entry['returns'])),
    f'{entry["mean"]:.2f}' + ('' if low is None else f' ({low:.2f} to {high:.2f})'),
    f'{entry["median"]:.2f}' if 'median' in entry else '',
    '' if normalised is None else f'{normalised:.1%}',
  ]
  return '| ' + ' | '.join(f'{bold}{cell}{bold}' if cell else '' for cell in cells) + ' |'


def _curve(folder: str, logdir: str) -> str:
  picture = 'learning_curve.png'
  try:
    curves.plot_learning_curve(logdir, os.path.join(folder, picture))
  except ValueError:  # There are no rows of metrics.
    return ''
  return f'## Learning curve\n\n![Returns, waits, policy lag and loss over frames]({picture})\n'


def _film(films: Sequence[str]) -> str:
  if not films:
    return ''
  shown = [f'![A game]({name})' for name in films if name.endswith('.webp')]
  shown += [f'[The whole film]({name})' for name in films if name.endswith('.webm')]
  return '\n\n'.join(['## A game', *shown, ''])


def _use(policy: Mapping[str, Any]) -> str:
  return (
    f'## Use\n\n```bash\npip install tensorflow numpy {_packages(policy)}\n'
    'python play_exported.py\n```\n\n'
    '`tf.saved_model.load` reads the model without the code that trained it. Its signature '
    '`initial_state` takes `batch_size` and gives `state`; `step` takes `observation`, '
    '`last_action`, `last_reward`, `done` and `state` of any number of games, and gives `action` '
    '(sampled), `greedy_action`, `logits`, `value` and the next `state`. `policy.json` tells '
    f'shapes and preprocessing: {policy["preprocessing"]}.\n'
  )


def _packages(policy: Mapping[str, Any]) -> str:
  """Returns the packages that make the environment, as far as they are known."""
  if policy['atari']:
    return 'ale-py'
  made = policy.get('environment') or dict(name='', env_wrappers='')
  is_atari = made['name'].startswith('ALE/')
  has_cv2 = '.AtariPreprocessing' in made['env_wrappers']
  suite = suites.find(policy['level_name'])
  of_suite = f' {suite.package}' if suite else ''
  return 'gymnasium' + of_suite + ' ale-py' * is_atari + ' opencv-python-headless' * has_cv2


def _training(
  policy: Mapping[str, Any], record: Mapping[str, Any], defaults: Mapping[str, Any]
) -> str:
  made_by = commands.commands(record, defaults) or [commands.Command({}, '', 1, '', '')]
  lines = ['## How it was trained', '']
  if len(made_by) > 1:
    lines += ['The run was started by these commands, one after the other:', '']
  for command in made_by:
    lines += [*_start(command), '```bash', commands.line(changed_flags(policy, command, defaults))]
    lines += ['```', '']
  of_last = ' of the last start' if len(made_by) > 1 else ''
  lines += [f'Level, agent, and the flags{of_last} that differ from their defaults:', '']
  lines += ['| flag | value |', '| --- | --- |']
  changed = changed_flags(policy, made_by[-1], defaults)
  words = [config.flag_of(name, value)[2:].partition('=') for name, value in changed.items()]
  lines += [f'| `{flag}` | {_cell(value)} |' for flag, _, value in words]
  return '\n'.join([*lines, ''])


def _start(command: commands.Command) -> list[str]:
  """Returns the lines above a command: when, how often and on which tasks it was started."""
  times = f'started {command.starts} times, first' if command.starts > 1 else 'started'
  parts = [f'{times} at {command.started}'] if command.started else []
  parts += [f'with {command.tasks}'] if command.tasks else []
  parts += [f'by commit {command.git_commit} of the code'] if command.git_commit else []
  return [f'- {", ".join(parts)}', ''] if parts else []


def _cell(text: str) -> str:
  """Returns text escaped for a cell of a Markdown table."""
  escaped = re.sub(r'([\\`*|<\[])', r'\\\1', text)
  return ' '.join(escaped.split())
