"""Declares settings as fields of a dataclass, with help, bounds and checks."""

import dataclasses
import math
import textwrap
import typing
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

T = TypeVar('T')


def setting(
  default: T,
  help: str,
  *,
  group: str = '',
  scope: str = '',
  choices: Iterable[str] = (),
  own: bool = False,
  above: float | None = None,
  minimum: float | None = None,
  maximum: float | None = None,
  fits: bool = False,
  fixed: bool = False,
  expert: bool = False,
  flag: str = '',
  canonical: Callable[[str], str] | None = None,
) -> T:
  """Declares a setting, with the name and type of the dataclass field.

  Args:
    default: default value.
    help: noun phrase with the unit.
    group: heading in the documentation; defaults to the class's group.
    scope: what the setting belongs to; defaults to the class's scope.
    choices: allowed values of an enumeration.
    own: whether `module:Class`, a class of the user's, is allowed beside `choices`.
    above, minimum, maximum: bounds; `above` is exclusive.
    fits: whether the default means "derived from the environment or the batch".
    fixed: whether a run with a checkpoint cannot change it.
    expert: whether only --helpfull shows it.
    flag: name of the flag; the setting's, if empty.
    canonical: function that returns the one spelling of a value, or raises ValueError with a text
      that completes "is".
  """
  declared = dict(
    help=help,
    group=group,
    scope=scope,
    choices=tuple(choices),
    own=own,
    above=above,
    minimum=minimum,
    maximum=maximum,
    fits=fits,
    fixed=fixed,
    expert=expert,
    flag=flag,
    canonical=canonical,
  )
  field: Any = dataclasses.field(default=default, metadata=declared)
  if isinstance(default, list):
    field = dataclasses.field(default_factory=default.copy, metadata=declared)
  return field


@dataclasses.dataclass(frozen=True)
class Setting:
  """A row of the table; see `setting` for its attributes."""

  name: str
  type: type
  default: Any
  help: str
  group: str
  scope: str
  choices: tuple[str, ...]
  own: bool
  above: float | None
  minimum: float | None
  maximum: float | None
  fits: bool
  fixed: bool
  expert: bool
  flag: str
  canonical: Callable[[str], str] | None

  @property
  def bounds(self) -> str:
    """Description of the allowed values; '' if any value of the type is allowed."""
    number = 'whole number' if self.type is int else 'number'
    if self.choices:
      more = ' or module:Class' if self.own else ''
      return 'one of ' + ', '.join(choice for choice in self.choices if choice) + more
    if self.minimum == 1 or self.above == 0:
      return f'a positive {number}'
    if self.maximum is not None:
      return f'a {number} from {self.minimum:g} to {self.maximum:g}'
    if self.type is int and self.minimum == 0:
      return f'a non-negative {number}'
    if self.minimum is not None:
      return f'a {number} of at least {self.minimum:g}'
    return {int: 'a whole number', float: 'a number', bool: 'true or false'}.get(self.type, '')

  @property
  def _shown_choices(self) -> list[str]:
    return [c for c in (*self.choices, *(('module:Class',) if self.own else ())) if c]

  @property
  def help_text(self) -> str:
    """The setting as lines for a terminal."""
    no = '[no]' if self.type is bool else ''
    choices = f' <{"|".join(self._shown_choices)}>' if self.choices else ''
    default = f' (default: {text(self.default)})' if self.default not in ('', []) else ''
    return textwrap.fill(
      f'--{no}{self.flag}:{choices} {self.help}{default}', 98, initial_indent='  ',
      subsequent_indent='      ', break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip

  @property
  def markdown(self) -> str:
    """The setting as a row of the table in docs/flags.md."""
    default = f'`{text(self.default)}`' if self.default not in ('', []) else ''
    choices = ', '.join(f'`{choice}`' for choice in self._shown_choices)
    kind = {str: 'text', list: 'a list, with commas'}.get(self.type, '')
    mark = ' *' if self.expert else ''
    return f'| `{self.flag}`{mark} | {default} | {choices or self.bounds or kind} | {self.help} |'

  def check(self, value: Any) -> Any:
    """Returns the value in its one spelling; converts an int to float for a float setting.

    Raises:
      ValueError: the value has another type or is out of bounds; the message has the valid values.
    """
    if self.type is float and type(value) is int:
      value = float(value)
    if type(value) is not self.type:
      raise ValueError(f'not {self.bounds or "a " + self.type.__name__}')
    out_of_bounds = self.type in (int, float) and not (
      math.isfinite(value)
      and (self.above is None or value > self.above)
      and (self.minimum is None or value >= self.minimum)
      and (self.maximum is None or value <= self.maximum)
    )
    is_own = self.own and is_own_code(value)
    if out_of_bounds or (self.choices and value not in self.choices and not is_own):
      raise ValueError(f'not {self.bounds}')
    return self.canonical(value) if self.canonical else value


def is_own_code(name: str) -> bool:
  """Returns whether a name is `module:Name`, which causes the module to be imported."""
  return ':' in name


def rows_of(cls: type, scope: str, group: str) -> Iterable[Setting]:
  """Yields the settings that a dataclass itself declares, without inherited ones.

  Args:
    cls: the dataclass.
    scope, group: defaults for settings that declare none.
  """
  types = typing.get_type_hints(cls)
  for field in dataclasses.fields(cls):
    if field.name in cls.__annotations__:
      declared: dict[str, Any] = dict(field.metadata)
      declared['scope'] = declared['scope'] or scope
      declared['group'] = declared['group'] or group
      declared['flag'] = declared['flag'] or field.name
      is_list = typing.get_origin(types[field.name]) is list
      kind, default = (list, []) if is_list else (types[field.name], field.default)
      yield Setting(name=field.name, type=kind, default=default, **declared)


def text(value: Any) -> str:
  """Returns a value as command-line text."""
  if isinstance(value, bool):
    return str(value).lower()
  return ','.join(map(str, value)) if isinstance(value, list) else str(value)
