"""Splits a command line into the frontend's own flags and the training flags, which pass unchanged.

absl's `known_only` would read a --flagfile itself and lose the value in `--batch_size 4`. Only the
names of the frontend's flags are known here.
"""

from collections.abc import Collection, Sequence
from typing import Any

from common import texts
from frontend.errors import UserError


def _own_name(word: str, own_flags: Any) -> str | None:
  """The name of the frontend's flag that `word` sets, or None."""
  if not word.startswith('-') or word.strip('-') == '':
    return None
  name = word.lstrip('-').split('=')[0]
  if name in own_flags:
    return name
  if name.startswith('no') and name[2:] in own_flags and own_flags[name[2:]].boolean:
    return name[2:]
  return None


def split_arguments(
  words: Sequence[str], own_flags: Any, actions: Collection[str]
) -> tuple[list[str], list[str]]:
  """Splits the words after the program's name.

  A word without a dash is the value of the training flag before it, unless that has a `=`.

  Args:
    words: arguments.
    own_flags: absl FlagValues with the frontend's flags.
    actions: names of the actions, to recognise one that was typed without --action=.

  Returns:
    (own words, training words).

  Raises:
    UserError: a word that belongs to no flag.
  """
  own, training = [], []
  words = list(words)
  may_be_value = False
  while words:
    word = words.pop(0)
    name = _own_name(word, own_flags)
    if name:
      own.append(word)
      if '=' not in word and not own_flags[name].boolean:
        if not words:
          raise UserError(f'--{name} needs a value: --{name}=...')
        own.append(words.pop(0))
    elif word.startswith('-') or may_be_value:
      training.append(word)
    else:
      hint = f'--action={word}' if word in actions else '--name=value'
      raise UserError(f'{word!r} belongs to no flag; write {hint}')
    may_be_value = not name and word.startswith('-') and '=' not in word
  return own, training


def own_flag_meant(word: str, own_flags: Any) -> str | None:
  """Returns the frontend's flag closest to the training flag `word`, or None.

  experiment.py suggests the closest of its own flags, but does not know the frontend's.
  """
  name = word.lstrip('-').split('=')[0]
  close = texts.closest(name, own_flags, cutoff=0.8)
  return close[0] if close else None


def take_logdir(words: Sequence[str]) -> tuple[str, list[str]]:
  """Returns (value of the last --logdir, the other words); '' if there is none."""
  logdir, rest, left = '', [], list(words)
  while left:
    word = left.pop(0)
    name, equals, value = word.partition('=')
    if name not in ('--logdir', '-logdir'):
      rest.append(word)
    elif equals:
      logdir = value
    else:
      logdir = left.pop(0) if left else ''
  return logdir, rest
