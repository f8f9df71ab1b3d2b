"""Splits a command line into the frontend's own flags and the training flags, which pass unchanged.

absl's `known_only` would read a `--flagfile` itself and lose the value in `--batch_size 4`, so the
words are told apart here, knowing only the names of the frontend's flags.
"""

from common import texts


def _own_name(word, own_flags):
  """The frontend flag that `word` sets, or None."""
  if not word.startswith('-') or word.strip('-') == '':
    return None
  name = word.lstrip('-').split('=')[0]
  if name in own_flags:
    return name
  if name.startswith('no') and name[2:] in own_flags and own_flags[name[2:]].boolean:
    return name[2:]
  return None


def split_arguments(words, own_flags, actions):
  """Splits the words after the program's name.

  A word without a dash is the value of the training flag right before it, if that has no `=`.

  Args:
    words: list of arguments.
    own_flags: absl FlagValues with the frontend's flags.
    actions: names of the actions, to recognise one that was typed without --action=.

  Returns:
    (own words, training words).

  Raises:
    ValueError: a word that belongs to no flag.
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
          raise ValueError(f'--{name} needs a value: --{name}=...')
        own.append(words.pop(0))
    elif word.startswith('-') or may_be_value:
      training.append(word)
    else:
      hint = f'--action={word}' if word in actions else '--name=value'
      raise ValueError(f'{word!r} belongs to no flag; write {hint}')
    may_be_value = not name and word.startswith('-') and '=' not in word
  return own, training


def own_flag_meant(word, own_flags):
  """The frontend flag closest to the training flag `word`, or None.

  `experiment.py` names the closest of its own flags when it refuses one; it cannot know the
  frontend's.
  """
  name = word.lstrip('-').split('=')[0]
  close = texts.closest(name, own_flags, cutoff=0.8)
  return close[0] if close else None
