"""The settings of `config.py` as text: `--help`, `--helpfull` and docs/flags.md.

python -m reporting.flag_docs > docs/flags.md
"""

import contextlib
from collections.abc import Iterable, Sequence

import config
from common.declarations import Setting


def help_text(full: bool = False) -> str:
  """Returns the settings for a terminal, by groups; those for experts only if `full`."""
  lines = []
  for heading, rows in _groups():
    lines.append(f'{heading}:')
    lines += [row.help_text for row in rows if full or not row.expert]
    lines.append('')
  if not full:
    lines.append('--helpfull also lists the settings for experts and for cluster managers.')
  return '\n'.join(lines)


def print_help(introduction: str, words: Sequence[str]) -> bool:
  """Prints the introduction and the settings if a command line asks for help.

  Args:
    introduction: text above the settings.
    words: the command line without the program's name.

  Returns:
    Whether it asks for help.
  """
  wanted = {'-h', '-help', '--help', '--helpfull'}.intersection(words)
  if wanted:
    with contextlib.suppress(BrokenPipeError):  # For example `--help | head`.
      print(f'{introduction}\n{help_text(full="--helpfull" in wanted)}', flush=True)
  return bool(wanted)


def _groups() -> Iterable[tuple[str, list[Setting]]]:
  """Yields each group's heading and rows."""
  for group, note in config.GROUPS.items():
    rows = [row for row in config.SETTINGS.values() if row.group == group]
    yield group + (f' ({note})' if note else ''), rows


def markdown() -> str:
  """Returns docs/flags.md."""
  lines = [
    '# Flags of `experiment.py`',
    '<!-- Written by `python -m reporting.flag_docs > docs/flags.md`; a test compares. -->',
    '',
    'A flag is written `--name=value`, a Boolean one also `--name` and `--noname`.',
    '`--flagfile=FILE` reads flags from a file, one per line. `--help` lists the flags that most',
    'people need, `--helpfull` also those marked with *. A frame is one frame of the environment;',
    'an agent step is one decision, which is `num_action_repeats` frames.',
  ]
  for heading, rows in _groups():
    lines += [
      '',
      f'## {heading}',
      '| flag | default | value | meaning |',
      '| --- | --- | --- | --- |',
    ]
    lines += [row.markdown for row in rows]
  lines += ['', '## Earlier spellings', '| flag | now |', '| --- | --- |']
  lines += [f'| `--{name}` | `--{new}={value}` |' for name, (new, value) in config.FORMER.items()]
  return '\n'.join(lines) + '\n'


if __name__ == '__main__':
  print(markdown(), end='')
