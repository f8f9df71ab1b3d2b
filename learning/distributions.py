"""Distributions of actions: sampling, mode, log probability and entropy from a policy's parameters.

A distribution has no variables; its parameters are tensors. The distribution of an action space
with several parts is the product of the distributions of its parts, so their log probabilities and
entropies add up.

Shapes: `...` is any number of leading axes, such as [N] or [T, B]; P is the number of parameters
and K the number of elements of an action (`structs.action_shape`).
"""

from __future__ import annotations

import abc
import math
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from structs import ActionPart, action_dtype

_LOG_2_PI = math.log(2 * math.pi)
# Log standard deviations are kept within these bounds, so that no density overflows.
_LEAST_LOG_STD, _MOST_LOG_STD = -7.0, 3.0
MASKED_LOGIT = -1e9  # Its exp is 0 in float32, and 0 times it is 0; 0 times -inf would be NaN.


class Distribution(abc.ABC):
  """A family of distributions over actions.

  Attributes:
    num_parameters: P.
    num_outputs: how many of the parameters depend on the observation; the network computes them.
    num_free: how many do not; they are a trained vector. num_outputs + num_free = P.
    num_choices: M, the number of logits that a mask can forbid.
  """

  num_parameters: int
  num_outputs: int
  num_free: int = 0
  num_choices: int = 0

  def parameters(
    self, outputs: tf.Tensor, free: tf.Tensor | None = None, mask: tf.Tensor | None = None
  ) -> tf.Tensor:
    """Returns the parameters.

    Args:
      outputs: float32 [..., num_outputs], the outputs of the network.
      free: float32 [num_free], or None if `num_free` is 0.
      mask: bool [..., num_choices], True where a choice is allowed; None allows all.

    Returns:
      float32 [..., P].
    """
    del free, mask
    return outputs

  @abc.abstractmethod
  def sample(self, parameters: tf.Tensor, seed: tf.Tensor | None = None) -> tf.Tensor:
    """Returns random actions.

    Args:
      parameters: float32 [..., P].
      seed: int32 [2]; equal seeds give equal actions. None draws other actions at every call.

    Returns:
      [..., K], or [...] of `Categorical`.
    """

  @abc.abstractmethod
  def mode(self, parameters: tf.Tensor) -> tf.Tensor:
    """Returns the likeliest actions, shaped like those of `sample`."""

  @abc.abstractmethod
  def log_prob(self, parameters: tf.Tensor, action: tf.Tensor) -> tf.Tensor:
    """Returns the log probability (density) of actions: float32 [...]."""

  @abc.abstractmethod
  def entropy_terms(self, parameters: tf.Tensor) -> tf.Tensor:
    """Returns float32 [..., E], terms whose sum is the (differential) entropy."""

  def entropy(self, parameters: tf.Tensor) -> tf.Tensor:
    """Returns the (differential) entropy: float32 [...]."""
    return tf.reduce_sum(self.entropy_terms(parameters), axis=-1)


class Categorical(Distribution):
  """One of `size` choices, as int32 without an axis of its own; the parameters are logits."""

  def __init__(self, size: int):
    self.num_parameters = self.num_outputs = self.num_choices = size

  def parameters(
    self, outputs: tf.Tensor, free: tf.Tensor | None = None, mask: tf.Tensor | None = None
  ) -> tf.Tensor:
    """See `Distribution.parameters`."""
    del free
    return outputs if mask is None else tf.where(mask, outputs, MASKED_LOGIT)

  def sample(self, parameters: tf.Tensor, seed: tf.Tensor | None = None) -> tf.Tensor:
    """See `Distribution.sample`."""
    flat = tf.reshape(parameters, [-1, self.num_parameters])
    if seed is None:
      action = tf.random.categorical(flat, 1, dtype=tf.int32)[:, 0]
    else:
      action = tf.random.stateless_categorical(flat, 1, seed, dtype=tf.int32)[:, 0]
    return action if parameters.shape.rank == 2 else tf.reshape(action, tf.shape(parameters)[:-1])

  def mode(self, parameters: tf.Tensor) -> tf.Tensor:
    """See `Distribution.mode`."""
    return tf.argmax(parameters, axis=-1, output_type=tf.int32)

  def log_prob(self, parameters: tf.Tensor, action: tf.Tensor) -> tf.Tensor:
    """See `Distribution.log_prob`."""
    return -tf.nn.sparse_softmax_cross_entropy_with_logits(labels=action, logits=parameters)

  def entropy_terms(self, parameters: tf.Tensor) -> tf.Tensor:
    """See `Distribution.entropy_terms`: a term for each choice."""
    return -(tf.nn.softmax(parameters) * tf.nn.log_softmax(parameters))


class Bernoulli(Distribution):
  """`size` independent bits, as int32 [..., size]; the parameters are the logits of 1."""

  def __init__(self, size: int):
    self.num_parameters = self.num_outputs = size

  def sample(self, parameters: tf.Tensor, seed: tf.Tensor | None = None) -> tf.Tensor:
    """See `Distribution.sample`."""
    shape = tf.shape(parameters)
    uniform = tf.random.uniform(shape) if seed is None else tf.random.stateless_uniform(shape, seed)
    return tf.cast(uniform < tf.sigmoid(parameters), tf.int32)

  def mode(self, parameters: tf.Tensor) -> tf.Tensor:
    """See `Distribution.mode`."""
    return tf.cast(parameters > 0, tf.int32)

  def log_prob(self, parameters: tf.Tensor, action: tf.Tensor) -> tf.Tensor:
    """See `Distribution.log_prob`."""
    bits = tf.cast(action, tf.float32)
    losses = tf.nn.sigmoid_cross_entropy_with_logits(labels=bits, logits=parameters)
    return -tf.reduce_sum(losses, axis=-1)

  def entropy_terms(self, parameters: tf.Tensor) -> tf.Tensor:
    """See `Distribution.entropy_terms`: a term for each bit."""
    # The cross entropy of the probabilities with themselves.
    return tf.nn.sigmoid_cross_entropy_with_logits(labels=tf.sigmoid(parameters), logits=parameters)


class Normal(Distribution):
  """`size` independent normal variables, as float32 [..., size], not clipped.

  The parameters are `size` means and then `size` log standard deviations. The deviations do not
  depend on the observation: they are a trained vector. Values in [-1, 1] stand for the bounds of
  the action space; the environment's side scales and clips (`envs.actions`).
  """

  def __init__(self, size: int):
    self.num_outputs = self.num_free = size
    self.num_parameters = 2 * size

  def parameters(
    self, outputs: tf.Tensor, free: tf.Tensor | None = None, mask: tf.Tensor | None = None
  ) -> tf.Tensor:
    """See `Distribution.parameters`."""
    del mask
    given: Any = free
    log_std = tf.clip_by_value(given, _LEAST_LOG_STD, _MOST_LOG_STD)
    return tf.concat([outputs, tf.zeros_like(outputs) + log_std], axis=-1)

  def sample(self, parameters: tf.Tensor, seed: tf.Tensor | None = None) -> tf.Tensor:
    """See `Distribution.sample`."""
    mean, log_std = tf.split(parameters, 2, axis=-1)
    shape = tf.shape(mean)
    noise = tf.random.normal(shape) if seed is None else tf.random.stateless_normal(shape, seed)
    return mean + tf.exp(log_std) * noise

  def mode(self, parameters: tf.Tensor) -> tf.Tensor:
    """See `Distribution.mode`."""
    return tf.split(parameters, 2, axis=-1)[0]

  def log_prob(self, parameters: tf.Tensor, action: tf.Tensor) -> tf.Tensor:
    """See `Distribution.log_prob`."""
    mean, log_std = tf.split(parameters, 2, axis=-1)
    squares = tf.square((action - mean) * tf.exp(-log_std))
    return -0.5 * tf.reduce_sum(squares + 2 * log_std + _LOG_2_PI, axis=-1)

  def entropy_terms(self, parameters: tf.Tensor) -> tf.Tensor:
    """See `Distribution.entropy_terms`: a term for each number."""
    return tf.split(parameters, 2, axis=-1)[1] + 0.5 * (1 + _LOG_2_PI)


class Product(Distribution):
  """Independent parts; an action is the concatenation of theirs.

  Args:
    parts: the distributions; their parameters, outputs, trained vectors and masks are concatenated
      in this order.
    dtype: of an action, 'int32' or 'float32'.
  """

  def __init__(self, parts: Sequence[Distribution], dtype: str):
    self._parts, self._dtype = parts, dtype
    self.num_parameters = sum(part.num_parameters for part in parts)
    self.num_outputs = sum(part.num_outputs for part in parts)
    self.num_free = sum(part.num_free for part in parts)
    self.num_choices = sum(part.num_choices for part in parts)

  def parameters(
    self, outputs: tf.Tensor, free: tf.Tensor | None = None, mask: tf.Tensor | None = None
  ) -> tf.Tensor:
    """See `Distribution.parameters`."""
    splits: list[list[Any]] = [_split(outputs, [part.num_outputs for part in self._parts])]
    for tensor, sizes in (
      (free, [part.num_free for part in self._parts]),
      (mask, [part.num_choices for part in self._parts]),
    ):
      splits.append([None] * len(sizes) if tensor is None else _split(tensor, sizes))
    rows = zip(self._parts, *splits, strict=True)
    return tf.concat(
      [
        part.parameters(out, free, mask if part.num_choices else None)
        for part, out, free, mask in rows
      ],
      axis=-1,
    )

  def sample(self, parameters: tf.Tensor, seed: tf.Tensor | None = None) -> tf.Tensor:
    """See `Distribution.sample`."""
    seeds: list[Any] = [None] * len(self._parts)
    if seed is not None:  # Parts with one seed would draw alike.
      seeds = [tf.random.experimental.stateless_fold_in(seed, i) for i in range(len(seeds))]
    each = zip(self._each(parameters), seeds, strict=True)
    return self._joined([part.sample(own, part_seed) for (part, own), part_seed in each])

  def mode(self, parameters: tf.Tensor) -> tf.Tensor:
    """See `Distribution.mode`."""
    return self._joined([part.mode(own) for part, own in self._each(parameters)])

  def log_prob(self, parameters: tf.Tensor, action: tf.Tensor) -> tf.Tensor:
    """See `Distribution.log_prob`."""
    sizes = [1 if isinstance(part, Categorical) else part.num_outputs for part in self._parts]
    terms = []
    for (part, own), chosen in zip(self._each(parameters), _split(action, sizes), strict=True):
      if isinstance(part, Categorical):
        chosen = tf.cast(tf.squeeze(chosen, axis=-1), tf.int32)
      terms.append(part.log_prob(own, chosen))
    return tf.add_n(terms)

  def entropy_terms(self, parameters: tf.Tensor) -> tf.Tensor:
    """See `Distribution.entropy_terms`: those of all parts."""
    return tf.concat([part.entropy_terms(own) for part, own in self._each(parameters)], axis=-1)

  def _each(self, parameters):
    sizes = [part.num_parameters for part in self._parts]
    return zip(self._parts, _split(parameters, sizes), strict=True)

  def _joined(self, actions):
    columns = []
    for part, action in zip(self._parts, actions, strict=True):
      column = action[..., tf.newaxis] if isinstance(part, Categorical) else action
      columns.append(tf.cast(column, self._dtype))
    return tf.concat(columns, axis=-1)


def _split(tensor: tf.Tensor, sizes: Sequence[int]) -> list[tf.Tensor]:
  return tf.split(tensor, list(sizes), axis=-1)


_KINDS = {'discrete': Categorical, 'binary': Bernoulli, 'continuous': Normal}


def distribution_of(parts: Sequence[ActionPart]) -> Distribution:
  """Returns the distribution over an action space with these parts."""
  distributions = [_KINDS[part.kind](part.size) for part in parts]
  if len(distributions) == 1:
    return distributions[0]
  return Product(distributions, action_dtype(parts))
