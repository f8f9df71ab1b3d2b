"""Dynamic batching: who shares a run, who waits, what comes back, and what is refused."""

import collections
import threading
import time

import numpy as np
import pytest
import sonnet as snt
import tensorflow as tf

import dynamic_batching

snt.Module()  # Sonnet 2 wants its first module built eagerly.

LIMIT_SECS = 60  # For giving up; what is waited for takes a fraction of a second.
FOR_EVER_MS = 2 * 1000 * LIMIT_SECS  # A timeout that only a failing test lives to see.
Pair = collections.namedtuple('Pair', 'left right')


@pytest.fixture
def session():
  with tf.Graph().as_default():
    config = tf.compat.v1.ConfigProto(
      inter_op_parallelism_threads=2, intra_op_parallelism_threads=1
    )
    with tf.compat.v1.Session(config=config) as session:
      yield session


def _add_size(batch):
  """Each row, and the number of rows in the batch that it was part of."""
  rows = tf.shape(batch)[0]
  return batch + 1, tf.fill([rows], rows)


def _row(value=0.0):
  return tf.constant([[value]])


def _in_threads(functions):
  """Runs each function in a thread of its own; their results, or the first exception."""
  results = [None] * len(functions)

  def call(i):
    try:
      results[i] = functions[i]()
    except Exception as error:
      results[i] = error

  threads = [threading.Thread(target=call, args=(i,), daemon=True) for i in range(len(functions))]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join(LIMIT_SECS)
  assert not any(thread.is_alive() for thread in threads), 'a caller still waits'
  for result in results:
    if isinstance(result, Exception):
      raise result
  return results


def test_a_single_call(session):
  value, size = session.run(dynamic_batching.batch_fn(_add_size)(_row(1.0)))
  np.testing.assert_array_equal(value, [[2.0]])
  np.testing.assert_array_equal(size, [1])


def test_nests_in_and_out(session):
  @dynamic_batching.batch_fn
  def swap(pair, scale, extra):
    return {'pair': Pair(pair.right * scale[:, None], [pair.left]), 'none': (), 'sum': extra['x']}

  output = swap(
    Pair(np.float32([[1, 2], [3, 4]]), tf.constant([[5.0], [6.0]])),
    scale=tf.constant([10.0, 100.0]),
    extra={'x': tf.constant([7, 8])},
  )
  assert isinstance(output['pair'], Pair) and output['none'] == ()
  values = session.run(output)
  np.testing.assert_array_equal(values['pair'].left, [[50], [600]])
  np.testing.assert_array_equal(values['pair'].right[0], [[1, 2], [3, 4]])
  np.testing.assert_array_equal(values['sum'], [7, 8])


def test_call_sites_of_one_run_are_merged(session):
  add = dynamic_batching.batch_fn_with_options(3, timeout_ms=FOR_EVER_MS)(_add_size)
  outputs = session.run([add(_row(i)) for i in (1.0, 2.0, 3.0)])
  assert [value.item() for value, _ in outputs] == [2, 3, 4]
  assert [size.item() for _, size in outputs] == [3, 3, 3]


def test_call_sites_of_many_threads_are_merged(session):
  add = dynamic_batching.batch_fn_with_options(16, timeout_ms=FOR_EVER_MS)(_add_size)
  calls = [add(_row(float(i))) for i in range(16)]
  outputs = _in_threads([lambda c=call: session.run(c) for call in calls])
  assert [value.item() for value, _ in outputs] == list(range(1, 17))
  assert {size.item() for _, size in outputs} == {16}


def test_sixteen_threads_give_a_mean_batch_above_four(session):
  sizes, away, change = [], set(range(16)), threading.Condition()

  def slow(batch):
    """Takes as long as those served before need to come back, however busy the machine is."""
    with change:
      assert change.wait_for(lambda: not away, LIMIT_SECS)
      away.update(int(row) for row in batch[:, 0])
      sizes.append(len(batch))
    time.sleep(0.05)  # The way from being back to being queued.
    return batch

  def come_back(i):
    with change:
      away.discard(i)
      change.notify_all()

  @dynamic_batching.batch_fn
  def infer(batch):
    return tf.ensure_shape(tf.numpy_function(slow, [batch], tf.float32), batch.shape)

  def caller(i, run):
    for _ in range(10):
      come_back(i)
      assert run() == i
    come_back(i)

  runs = [session.make_callable(infer(_row(float(i)))) for i in range(16)]
  _in_threads([lambda i=i: caller(i, runs[i]) for i in range(16)])
  assert sum(sizes) == 16 * 10
  assert np.mean(sizes) > 4


def test_rows_return_to_whom_they_belong(session):
  add = dynamic_batching.batch_fn(_add_size)
  inputs = [np.float32(np.random.default_rng(i).normal(size=(i % 3 + 1, 2))) for i in range(12)]
  runs = [session.make_callable(add(x)) for x in inputs]
  outputs = _in_threads([lambda r=run: [r() for _ in range(20)] for run in runs])
  for x, results in zip(inputs, outputs, strict=True):
    for value, size in results:
      np.testing.assert_array_equal(value, x + 1)
      assert (size >= len(x)).all()


def test_with_a_minimum_of_one_nobody_waits(session):
  add = dynamic_batching.batch_fn_with_options(timeout_ms=FOR_EVER_MS)(_add_size)
  call = add(_row())
  _, size = _in_threads([lambda: session.run(call)])[0]
  np.testing.assert_array_equal(size, [1])


def test_a_minimum_is_waited_for(session):
  add = dynamic_batching.batch_fn_with_options(2, timeout_ms=FOR_EVER_MS)(_add_size)
  first, second = add(_row(1.0)), add(_row(2.0))
  results = []
  thread = threading.Thread(target=lambda: results.append(session.run(first)), daemon=True)
  thread.start()
  thread.join(0.5)
  assert not results, 'one row ran, where two are the minimum'
  session.run(second)
  thread.join(LIMIT_SECS)
  np.testing.assert_array_equal(results[0][1], [2])


def test_a_minimum_is_waited_for_no_longer_than_the_timeout(session):
  add = dynamic_batching.batch_fn_with_options(2, timeout_ms=20)(_add_size)
  call = add(_row(1.0))
  value, size = _in_threads([lambda: session.run(call)])[0]
  np.testing.assert_array_equal(value, [[2.0]])
  np.testing.assert_array_equal(size, [1])


@pytest.mark.parametrize('static', [True, False])
def test_a_call_that_reaches_the_minimum_alone_does_not_wait(session, static):
  add = dynamic_batching.batch_fn_with_options(4, timeout_ms=FOR_EVER_MS)(_add_size)
  rows = tf.compat.v1.placeholder(tf.float32, [5 if static else None, 1])
  call = add(rows)
  value, size = _in_threads([lambda: session.run(call, {rows: np.zeros([5, 1])})])[0]
  np.testing.assert_array_equal(value, np.ones([5, 1]))
  np.testing.assert_array_equal(size, [5] * 5)


def test_a_call_of_unknown_size_below_the_minimum_waits_for_the_timeout(session):
  add = dynamic_batching.batch_fn_with_options(4, timeout_ms=20)(_add_size)
  rows = tf.compat.v1.placeholder(tf.float32, [None, 1])
  call = add(rows)
  value, size = _in_threads([lambda: session.run(call, {rows: np.zeros([3, 1])})])[0]
  np.testing.assert_array_equal(value, np.ones([3, 1]))
  np.testing.assert_array_equal(size, [3] * 3)


def test_the_maximum_is_never_exceeded(session):
  sizes = []

  def slow(batch):
    sizes.append(len(batch))
    time.sleep(0.02)  # Lets the other calls queue.
    return batch

  @dynamic_batching.batch_fn_with_options(maximum_batch_size=2)
  def infer(batch):
    return tf.ensure_shape(tf.numpy_function(slow, [batch], tf.float32), batch.shape)

  outputs = session.run([infer(_row(float(i))) for i in range(12)])
  assert [x.item() for x in outputs] == list(range(12))
  assert sum(sizes) == 12 and max(sizes) == 2


def test_groups_beyond_the_minimum_are_not_lost(session):
  add = dynamic_batching.batch_fn_with_options(2, 3, timeout_ms=20)(_add_size)
  outputs = session.run([add(_row(float(i))) for i in range(101)])
  assert [value.item() for value, _ in outputs] == list(range(1, 102))
  assert max(size.item() for _, size in outputs) <= 3


def test_static_shapes(session):
  @dynamic_batching.batch_fn
  def f(a):
    return tf.tile(a, [1, 3]), tf.reduce_sum(a, 1)

  wide, narrow = f(tf.zeros([4, 2]))
  assert wide.shape.as_list() == [4, 6] and narrow.shape.as_list() == [4]
  wide, narrow = f(tf.compat.v1.placeholder(tf.float32, [None, 2]))
  assert wide.shape.as_list() == [None, 6] and narrow.shape.as_list() == [None]


def test_calls_of_different_shapes_and_dtypes_keep_apart(session):
  add = dynamic_batching.batch_fn(_add_size)
  inputs = tf.zeros([1, 2]), tf.zeros([1, 3]), tf.zeros([1], tf.int64)
  outputs = session.run([add(x) for x in inputs])
  assert [(value.shape, value.dtype) for value, _ in outputs] == [
    ((1, 2), np.float32),
    ((1, 3), np.float32),
    ((1,), np.int64),
  ]


def test_constant_inputs_are_computed_at_every_run(session):
  sample = dynamic_batching.batch_fn(lambda a: a + tf.random.uniform([tf.shape(a)[0], 1]))
  call = sample(_row())
  assert session.run(call) != session.run(call)


def test_calls_that_are_alike_are_computed_each(session):
  sample = dynamic_batching.batch_fn(lambda a: a + tf.random.uniform([tf.shape(a)[0], 1]))
  first, second = session.run([sample(_row()), sample(_row())])
  assert first != second


def test_a_function_serves_several_graphs():
  offsets = []
  add = dynamic_batching.batch_fn(lambda a: a + offsets[-1])
  for value in (1.0, 2.0):
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
      offsets.append(tf.constant(10 * value))
      assert session.run(add(_row(value))) == 11 * value


def test_sonnet_modules_keep_their_variables(session):
  linear = snt.Linear(3)
  x = tf.random.stateless_normal([4, 2], [1, 2])
  direct = linear(x)
  variables = tf.compat.v1.global_variables()
  batched = dynamic_batching.batch_fn(linear)(x)
  assert tf.compat.v1.global_variables() == variables
  session.run(tf.compat.v1.global_variables_initializer())
  np.testing.assert_allclose(*session.run([direct, batched]), atol=1e-5)
  session.run(linear.b.assign([1, 2, 3]))  # The next run sees the new weights.
  np.testing.assert_allclose(*session.run([direct, batched]), atol=1e-5)


def test_loops_of_several_threads_share_runs(session):
  linear = snt.Linear(2)
  linear(tf.zeros([1, 2]))
  scale = linear.b + 0.5  # Computed once, before the loops.
  step = dynamic_batching.batch_fn_with_options(4, timeout_ms=FOR_EVER_MS)(
    lambda x: (tf.nn.tanh(linear(x) * scale), _add_size(x)[1])
  )

  def loop(first):
    return tf.scan(lambda carry, _: step(carry[0]), tf.range(10), (first, tf.zeros([2], tf.int32)))

  first = [tf.random.stateless_normal([2, 2], [0, i]) for i in range(2)]
  loops = [loop(x) for x in first]
  assert [t.shape.as_list() for t in loops[0]] == [[10, 2, 2], [10, 2]]
  expected = [tf.scan(lambda x, _: tf.nn.tanh(linear(x) * scale), tf.range(10), x) for x in first]
  session.run(tf.compat.v1.global_variables_initializer())
  outputs = _in_threads([lambda c=call: session.run(c) for call in loops])
  for (values, sizes), want in zip(outputs, session.run(expected), strict=True):
    np.testing.assert_allclose(values, want, atol=1e-5)
    np.testing.assert_array_equal(sizes, 4)


def test_an_error_of_the_function_reaches_the_caller_and_passes(session):
  @dynamic_batching.batch_fn
  def positive(a):
    with tf.control_dependencies([tf.debugging.assert_positive(a, message='not positive')]):
      return tf.identity(a)

  bad, good = positive(_row(-1.0)), positive(_row(1.0))
  with pytest.raises(tf.errors.InvalidArgumentError, match='not positive'):
    session.run(bad)
  assert session.run(good) == 1


@pytest.mark.parametrize(
  'f, message',
  [
    (lambda a: tf.constant(1), 'must have a batch dimension'),
    (lambda a: tf.constant([1, 2]), 'as many rows as the inputs'),
    (lambda a: (), 'at least one tensor'),
  ],
)
def test_outputs_known_to_be_wrong_are_refused_while_the_graph_is_built(session, f, message):
  with pytest.raises(ValueError, match=message):
    dynamic_batching.batch_fn(f)(_row())


@pytest.mark.parametrize(
  'inputs, message',
  [
    ((), 'at least one input'),
    ((np.float32(1),), 'must have a batch dimension'),
    ((np.zeros([1, 2]), np.zeros([2, 2])), r'same number of rows.*\(1, 2\), \(2, 2\)'),
    ((np.zeros([5]),), 'a call of 5 rows is larger than the maximum_batch_size 4'),
  ],
)
def test_inputs_known_to_be_wrong_are_refused_while_the_graph_is_built(session, inputs, message):
  f = dynamic_batching.batch_fn_with_options(maximum_batch_size=4)(lambda *args: args)
  with pytest.raises(ValueError, match=message):
    f(*inputs)


def test_inputs_that_turn_out_wrong_are_reported_to_the_caller(session):
  f = dynamic_batching.batch_fn_with_options(maximum_batch_size=4)(lambda *args: args)
  a, b = tf.compat.v1.placeholder(tf.float32, [None]), tf.compat.v1.placeholder(tf.float32)
  call = f(a, b)
  for feed in ({a: [1, 2], b: [1]}, {a: [1], b: 1}, {a: [1] * 5, b: [1] * 5}):
    with pytest.raises(tf.errors.InvalidArgumentError):
      session.run(call, feed)
  np.testing.assert_array_equal(session.run(call, {a: [1, 2], b: [3, 4]}), [[1, 2], [3, 4]])


def test_rows_that_do_not_fit_together_are_reported_to_all_their_callers(session):
  f = dynamic_batching.batch_fn_with_options(2, timeout_ms=FOR_EVER_MS)(lambda a: a)
  rows = [tf.compat.v1.placeholder(tf.float32, [1, None]) for _ in range(2)]
  calls = [f(x) for x in rows]

  def run(i):
    with pytest.raises(tf.errors.InvalidArgumentError):
      session.run(calls[i], {rows[i]: np.zeros([1, i + 1])})
    return True

  assert _in_threads([lambda: run(0), lambda: run(1)]) == [True, True]


def test_outputs_that_turn_out_wrong_are_reported_to_the_caller(session):
  f = dynamic_batching.batch_fn(lambda a: tf.zeros([tf.shape(a)[0] + 1]))
  with pytest.raises(tf.errors.FailedPreconditionError, match='dimension size: 2; batch size: 1'):
    session.run(f(_row()))


@pytest.mark.parametrize(
  'options, message',
  [
    ({'minimum_batch_size': 0}, 'minimum_batch_size 0 must be between 1 and'),
    ({'minimum_batch_size': 3, 'maximum_batch_size': 2}, 'minimum_batch_size 3 must be between'),
    ({'timeout_ms': -1}, 'timeout_ms must not be negative'),
  ],
)
def test_impossible_options_are_refused(options, message):
  with pytest.raises(ValueError, match=message):
    dynamic_batching.batch_fn_with_options(**options)
