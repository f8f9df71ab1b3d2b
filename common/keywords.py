"""Flags that change how an environment is made: its keywords, wrappers and imports, as text.

`--env_kwargs='{"name": value}'`, `--env_wrappers=module.Class,module.Class:{"name": value}` and
`--import=module,module:function`. Nothing is imported here.
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

_PATH = re.compile(r'[^\W\d]\w*(\.[^\W\d]\w*)*')
_NAME = re.compile(r'[^\W\d]\w*')
_JSON = json.JSONDecoder()


class Wrapper(NamedTuple):
  """A wrapper of an environment.

  Attributes:
    path: dotted path of a class or function whose first argument is the environment.
    kwargs: its other arguments, by name.
  """

  path: str
  kwargs: dict[str, Any]


class Import(NamedTuple):
  """What registers environments.

  Attributes:
    module: dotted path of a module.
    function: name of a function in it that is called without arguments; '' if the import is enough.
  """

  module: str
  function: str


def keywords_of(text: str) -> dict[str, Any]:
  """Returns the keywords in a JSON object; '' holds none.

  A list becomes a tuple, which is what most of Gymnasium's environments take; inside of an object
  or of another list it stays a list.

  Raises:
    ValueError: `text` is no JSON object whose names are Python's; the message completes "is not".
  """
  if not text.strip():
    return {}
  try:
    found, end = _object(text, len(text) - len(text.lstrip()))
  except ValueError as error:
    raise ValueError(f'not a JSON object such as {{"is_slippery": false}}: {error}') from None
  if text[end:].strip():
    raise ValueError(
      f'not one JSON object such as {{"is_slippery": false}}: {text[end:].strip()!r} follows it'
    )
  return _as_keywords(found)


def wrappers_of(text: str) -> list[Wrapper]:
  """Returns the wrappers in a flag's value, the innermost first.

  Args:
    text: dotted paths, each with a colon and a JSON object of its keywords if it has any, with
      commas between them.

  Raises:
    ValueError: `text` is something else; the message completes "is not".
  """
  wrappers, at = [], 0
  while text[at:].strip():
    at += len(text[at:]) - len(text[at:].lstrip())
    path = _PATH.match(text, at)
    if not path or '.' not in path[0]:
      raise ValueError(
        'not a list of wrappers such as module.Class,module.Class:{"name": value}: '
        f'{_shown(text[at:])} is no dotted path of a class'
      )
    at, kwargs = path.end(), {}
    if text[at:].startswith(':'):
      try:
        kwargs, at = _object(text, at + 1)
        kwargs = _as_keywords(kwargs)
      except ValueError as error:
        raise ValueError(
          f'not a list of wrappers such as module.Class:{{"name": value}}: what follows {path[0]}: '
          f'is no JSON object: {error}'
        ) from None
    wrappers.append(Wrapper(path[0], kwargs))
    at += len(text[at:]) - len(text[at:].lstrip())
    if text[at:] and text[at] != ',':
      raise ValueError(
        'not a list of wrappers such as module.Class,module.Class:{"name": value}: '
        f'{_shown(text[at:])} follows {path[0]} where a comma or a colon would be right'
      )
    at += 1
  return wrappers


def imports_of(text: str) -> list[Import]:
  """Returns the modules, and functions to call in them, in a flag's value with commas.

  Raises:
    ValueError: `text` is something else; the message completes "is not".
  """
  imports = []
  for word in filter(None, map(str.strip, text.split(','))):
    module, colon, function = word.partition(':')
    if not _PATH.fullmatch(module) or (colon and not _NAME.fullmatch(function)):
      raise ValueError(f'not a list of modules such as module,module:function: {_shown(word)}')
    imports.append(Import(module, function))
  return imports


def canonical_keywords(text: str) -> str:
  """Returns the one spelling of what `keywords_of` reads; raises as it does."""
  return as_keywords(keywords_of(text))


def canonical_wrappers(text: str) -> str:
  """Returns the one spelling of what `wrappers_of` reads; raises as it does."""
  return as_wrappers(wrappers_of(text))


def canonical_imports(text: str) -> str:
  """Returns the one spelling of what `imports_of` reads; raises as it does."""
  return ','.join(
    module + (f':{function}' if function else '') for module, function in imports_of(text)
  )


def as_keywords(kwargs: dict[str, Any]) -> str:
  """Returns the text from which `keywords_of` reads `kwargs`; '' for none."""
  return _json(kwargs) if kwargs else ''


def joined(kwargs: dict[str, Any], text: str) -> str:
  """Returns `text` (see `keywords_of`) with those of `kwargs` that it does not set."""
  return as_keywords({**kwargs, **keywords_of(text)}) if kwargs else text


def as_wrappers(wrappers: list[Wrapper]) -> str:
  """Returns the text from which `wrappers_of` reads `wrappers`."""
  return ','.join(path + (f':{_json(kwargs)}' if kwargs else '') for path, kwargs in wrappers)


def _object(text: str, start: int) -> tuple[dict[str, Any], int]:
  """Returns (JSON object, where it ends) of the text from `start` on."""
  try:
    found, end = _JSON.raw_decode(text, start)
  except json.JSONDecodeError as error:
    raise ValueError(f'{error.msg} at character {error.pos + 1}') from None
  except RecursionError:
    raise ValueError('it is nested too deeply') from None
  if not isinstance(found, dict):
    raise ValueError(f'{_shown(text[start:end])} is none')
  wrong = [name for name in found if not _NAME.fullmatch(name)]
  if wrong:
    raise ValueError(f'{wrong[0]!r} is no name of a keyword')
  return found, end


def _as_keywords(found: dict[str, Any]) -> dict[str, Any]:
  return {name: tuple(v) if isinstance(v, list) else v for name, v in found.items()}


def _json(kwargs: dict[str, Any]) -> str:
  return json.dumps(kwargs, sort_keys=True, ensure_ascii=False)


def _shown(text: str) -> str:
  return repr(text if len(text) <= 40 else f'{text[:40]}...')
