"""Captures the state of a Python object as plain data, and sets it in another object of its kind.

What an environment is made of is walked recursively: numbers, texts, arrays, containers, random
generators, and plain Python objects by their attributes. Functions, classes and spaces count as
constants. Whatever else there is, such as the world of a simulator written in C, cannot be
captured. The data is JSON: a checkpoint may come from somebody else, so setting it imports nothing
and makes objects only of classes of which the object that it is set in has some already.

A state is a JSON value: None, a bool, an int, a float or a text stands for itself, and a list is
[kind, ...]. Mutable values are numbered in the order of the walk, so that two names of one array
are still names of one array when they are set.
"""

from __future__ import annotations

import base64
import collections
import enum
import functools
import logging
import random
import re
import struct
import types
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import numpy as np

# What a damaged state leads to.
_UNFIT = (TypeError, ValueError, LookupError, AttributeError, RecursionError, OverflowError)
_PLAIN = (type(None), bool, int, float, str)
_DICTS = {'dict': dict, 'OrderedDict': collections.OrderedDict, 'Counter': collections.Counter}
_CONSTANTS = (
  type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType, types.MethodType,
  types.MethodWrapperType, types.MappingProxyType, functools.partial, range, slice, re.Pattern,
  np.ufunc, np.dtype, logging.Logger, gymnasium.envs.registration.EnvSpec, property, complex,
  type(Ellipsis), type(NotImplemented),
)  # fmt: skip
_BIT_GENERATORS = {
  cls.__name__: cls
  for cls in (
    np.random.PCG64, np.random.PCG64DXSM, np.random.MT19937, np.random.Philox, np.random.SFC64,
  )
}  # fmt: skip


class CannotCapture(ValueError):
  """A state cannot be captured or set; the message says which part of it and why."""


def capture(parts: Mapping[str, Any]) -> Any:
  """Returns the state of what an object consists of, which JSON can hold.

  Args:
    parts: values by name; messages name them.

  Raises:
    CannotCapture: something in them is neither data nor a Python object.
  """
  walk = _Walk()
  return [[name, walk.node_of(part, name)] for name, part in parts.items()]


def restore(parts: Mapping[str, Any], state: Any) -> dict[str, Any]:
  """Sets a state, in place where that is possible.

  Args:
    parts: like those that were captured, of another object; changed in part if this fails.
    state: from `capture`.

  Returns:
    The parts that have this state.

  Raises:
    CannotCapture: the state does not fit, or is damaged.
  """
  walk = _Walk()
  for name, part in parts.items():
    walk.node_of(part, name)
  setting = _Setting(walk.classes)
  try:
    values = {name: setting.value_of(node, parts[name]) for name, node in state}
  except _UNFIT as error:
    raise CannotCapture(f'the state does not fit: {error!r}') from error
  if values.keys() != parts.keys():
    raise CannotCapture(f'the state has {", ".join(values)} and not {", ".join(parts)}')
  return values


def _class_name(cls: type) -> str:
  return f'{cls.__module__}:{cls.__qualname__}'


def _label(constant: Any) -> str:
  """Returns what tells a constant from another of its type."""
  if isinstance(constant, (range, slice, re.Pattern, np.dtype, complex)):
    return f'{type(constant).__name__} {constant}'
  name = getattr(constant, '__qualname__', None) or getattr(constant, '__name__', '')
  return f'{type(constant).__name__} {getattr(constant, "__module__", "")} {name}'


def _slots(cls: type) -> list[str]:
  """Returns the names of an object's attributes that are not in its `__dict__`."""
  names = []
  for base in cls.__mro__:
    own = base.__dict__.get('__slots__', ())
    for name in [own] if isinstance(own, str) else own:
      is_private = name.startswith('__') and not name.endswith('__')
      names.append(f'_{base.__name__.lstrip("_")}{name}' if is_private else name)
  return [name for name in names if name not in ('__dict__', '__weakref__')]


def _is_made_of_attributes(cls: type) -> bool:
  """Returns whether objects of a class have no fields of C beside their attributes."""
  pointers = len(_slots(cls)) + (cls.__dictoffset__ > 0) + (cls.__weakrefoffset__ > 0)
  return cls.__basicsize__ == object.__basicsize__ + pointers * struct.calcsize('P')


class _Walk:
  """Goes through an object once.

  Attributes:
    classes: classes of the values found, by kind and name.
  """

  def __init__(self):
    self.classes: dict[tuple[str, str], type] = {}
    self._numbers: dict[int, int] = {}
    self._seen: list[Any] = []  # Kept, so that no id is used twice.

  def node_of(self, value: Any, where: str) -> Any:
    try:
      return self._node(value, where)
    except RecursionError:
      raise CannotCapture('its objects are nested too deeply') from None

  def _node(self, value, where):
    kind = type(value)
    if kind in _PLAIN:
      return value
    if isinstance(value, _CONSTANTS):
      return ['constant', _label(value)]
    if isinstance(value, enum.Enum):
      self.classes['enum', _class_name(kind)] = kind
      return ['enum', _class_name(kind), value.name]
    if isinstance(value, np.generic):
      return ['scalar', *_bytes_of(np.asarray(value), where)]
    if kind is bytes:
      return ['bytes', base64.b64encode(value).decode()]
    if isinstance(value, tuple):
      return self._tuple(value, where)
    if id(value) in self._numbers:
      return ['same', self._numbers[id(value)]]
    self._numbers[id(value)] = number = len(self._seen)
    self._seen.append(value)
    return self._numbered(value, number, where)

  def _tuple(self, value, where):
    items = [self._node(item, f'{where}[{i}]') for i, item in enumerate(value)]
    if type(value) is tuple:
      return ['tuple', items]
    if not hasattr(value, '_fields'):
      raise CannotCapture(f'{where} is a {type(value).__name__}')
    self.classes['namedtuple', _class_name(type(value))] = type(value)
    return ['namedtuple', _class_name(type(value)), items]

  def _numbered(self, value, number, where):
    kind = type(value)
    if kind is np.ndarray:
      return ['array', number, *_bytes_of(value, where)]
    if kind is list:
      return ['list', number, self._items(value, where)]
    if kind in (set, frozenset):
      items = self._items(value, where)
      return [kind.__name__, number, sorted(items, key=repr)]
    if kind is collections.deque:
      return ['deque', number, value.maxlen, self._items(value, where)]
    if kind.__name__ in _DICTS and kind is _DICTS[kind.__name__] or kind is collections.defaultdict:
      return ['dict', number, kind.__name__, self._pairs(value, where)]
    if isinstance(value, np.random.Generator):
      state = self._node(value.bit_generator.state, where)
      return ['generator', number, type(value.bit_generator).__name__, state]
    if kind is np.random.RandomState:
      return ['randomstate', number, self._node(value.get_state(legacy=False), where)]
    if kind is random.Random:
      return ['random', number, self._node(value.getstate(), where)]
    if isinstance(value, gymnasium.Space):
      return ['space', number, self._node(value._np_random, f'{where}.np_random')]
    return self._object(value, number, where)

  def _items(self, values, where):
    return [self._node(item, f'{where}[{i}]') for i, item in enumerate(values)]

  def _pairs(self, value, where):
    return [
      [self._node(key, f'a key of {where}'), self._node(item, f'{where}[{key!r}]')]
      for key, item in value.items()
    ]

  def _object(self, value, number, where):
    cls = type(value)
    if isinstance(value, (list, dict, set, frozenset, np.ndarray, collections.deque)):
      raise CannotCapture(f'{where} is a {cls.__name__}, a container of its own kind')
    if not _is_made_of_attributes(cls):
      raise CannotCapture(f'{where} is a {_class_name(cls)}, which is not made of Python objects')
    self.classes['object', _class_name(cls)] = cls
    values = dict(getattr(value, '__dict__', {}))
    values |= {name: getattr(value, name) for name in _slots(cls) if hasattr(value, name)}
    # Sorted, since attributes come into being in another order where a state was set.
    attributes = [[name, self._node(values[name], f'{where}.{name}')] for name in sorted(values)]
    return ['object', number, _class_name(cls), attributes]


def _bytes_of(array, where):
  if array.dtype.hasobject or array.dtype.names:
    raise CannotCapture(f'{where} is an array of {array.dtype}')
  return array.dtype.str, list(array.shape), base64.b64encode(array.tobytes()).decode()


def _array_of(dtype, shape, text):
  dtype = np.dtype(str(dtype))
  if dtype.hasobject:
    raise ValueError(f'an array of {dtype}')
  return np.frombuffer(base64.b64decode(text), dtype).reshape(shape)


class _Setting:
  """Sets a state in an object, in place where the types are the same.

  Args:
    classes: by kind and name, those of which new values may be made.
  """

  def __init__(self, classes: dict[tuple[str, str], type]):
    self._classes = classes
    self._made: dict[int, Any] = {}
    # Ids of the mutable values that have been set: a second name needs another value.
    self._used: set[int] = set()
    self._kept: list[Any] = []

  def value_of(self, node: Any, current: Any) -> Any:
    """Returns the value of a state; `current` is what has its place so far."""
    if not isinstance(node, list):
      return node
    return getattr(self, f'_set_{node[0]}')(current, *node[1:])

  def _take(self, number: int, current: Any, cls: type, new: Callable[[], Any]) -> Any:
    """Returns the object to be set: `current` if it is a `cls` that is free, else `new()`."""
    target = current if type(current) is cls and id(current) not in self._used else new()
    self._used.add(id(target))
    self._kept.append(target)
    self._made[number] = target
    return target

  def _set_constant(self, current, label):
    if not isinstance(current, _CONSTANTS) or _label(current) != label:
      raise ValueError(f'{label} is elsewhere')
    return current

  def _set_enum(self, current, name, member):
    cls: Any = self._classes['enum', name]
    return cls[member]

  def _set_scalar(self, current, *array):
    return _array_of(*array)[()]

  def _set_bytes(self, current, text):
    return base64.b64decode(text)

  def _set_same(self, current, number):
    return self._made[number]

  def _set_tuple(self, current, items):
    return tuple(self._values(items, current if isinstance(current, tuple) else ()))

  def _set_namedtuple(self, current, name, items):
    cls: Any = self._classes['namedtuple', name]
    return cls._make(self._values(items, current if isinstance(current, tuple) else ()))

  def _values(self, nodes, old):
    return [self.value_of(node, old[i] if i < len(old) else None) for i, node in enumerate(nodes)]

  def _set_array(self, current, number, *array):
    new = _array_of(*array)
    fits = type(current) is np.ndarray and current.flags.writeable
    fits = fits and (current.dtype, current.shape) == (new.dtype, new.shape)
    target = self._take(number, current if fits else None, np.ndarray, new.copy)
    if target is current:
      target[...] = new
    return target

  def _set_list(self, current, number, items):
    target = self._take(number, current, list, list)
    target[:] = self._values(items, list(target))
    return target

  def _set_deque(self, current, number, maxlen, items):
    fits = type(current) is collections.deque and current.maxlen == maxlen
    target = self._take(
      number, current if fits else None, collections.deque, lambda: collections.deque(maxlen=maxlen)
    )
    values = self._values(items, list(target))
    target.clear()
    target.extend(values)
    return target

  def _set_set(self, current, number, items):
    target = self._take(number, current, set, set)
    values = self._values(items, ())
    target.clear()
    target.update(values)
    return target

  def _set_frozenset(self, current, number, items):
    self._made[number] = value = frozenset(self._values(items, ()))
    return value

  def _set_dict(self, current, number, kind, pairs):
    cls = collections.defaultdict if kind == 'defaultdict' else _DICTS[kind]
    if cls is collections.defaultdict and type(current) is not cls:
      raise ValueError('a defaultdict is elsewhere')
    target = self._take(number, current, cls, cls)
    old = dict(target)
    values = []
    for key, item in pairs:
      key = self.value_of(key, None)
      values.append((key, self.value_of(item, old.get(key))))
    target.clear()
    target.update(values)
    return target

  def _set_generator(self, current, number, name, state):
    fits = isinstance(current, np.random.Generator)
    fits = fits and type(current.bit_generator).__name__ == name
    new = lambda: np.random.Generator(_BIT_GENERATORS[name]())  # noqa: E731
    target = self._take(number, current if fits else None, type(current), new)
    target.bit_generator.state = self.value_of(state, None)
    return target

  def _set_randomstate(self, current, number, state):
    target = self._take(number, current, np.random.RandomState, np.random.RandomState)
    target.set_state(self.value_of(state, None))
    return target

  def _set_random(self, current, number, state):
    target = self._take(number, current, random.Random, random.Random)
    target.setstate(self.value_of(state, None))
    return target

  def _set_space(self, current, number, state):
    if not isinstance(current, gymnasium.Space):
      raise ValueError('a space is elsewhere')
    self._made[number] = current
    current._np_random = self.value_of(state, current._np_random)
    return current

  def _set_object(self, current, number, name, attributes):
    cls = self._classes['object', name]
    target = self._take(number, current, cls, lambda: object.__new__(cls))
    own: Any = getattr(target, '__dict__', None)
    slots = set(_slots(cls))
    old = dict(own or {}) | {n: getattr(target, n) for n in slots if hasattr(target, n)}
    values = {n: self.value_of(node, old.get(n)) for n, node in attributes}
    for missing in set(old) - set(values):
      object.__delattr__(target, missing)
    for attribute, value in values.items():
      if attribute in slots:
        object.__setattr__(target, attribute, value)
      else:
        own[attribute] = value
    return target
