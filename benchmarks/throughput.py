"""Measures how fast this machine trains, and which part is the bottleneck.

  python benchmarks/throughput.py --agent_name=SimpleConvNetAgent --secs=40 --json

All figures are agent steps per second (an Atari agent step is 4 frames). Each part runs alone with
every setting listed below; the best one counts. `serial_bound` is the rate of the three parts one
after the other, 1/(1/environment + 1/inference + 1/training); `whole` is a real run of
experiment.py, which trains on every step once; `efficiency` is whole/serial_bound. It exceeds 1 if
parts that leave a core idle when alone fill it together. Parts are measured in turn, several times,
and medians count, since the speed of a machine drifts. `stolen` is the share of processor time that
a virtual machine did not get from its host; above a few hundredths, figures say little.
"""

import argparse
import dataclasses
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time

import clusters

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)

NUM_ENVS = (16, 32, 64)  # Tried for environment and inference.
BATCH_SIZES = (8, 32)  # Tried for training, in unrolls.
WHOLE = ('--num_actors=2', '--envs_per_actor=32', '--batch_size=32', '--queue_capacity=64')
ROUNDS = 3
WARM_UP = 0.2  # Of the time of each measurement, not counted.


def rate(call, steps, secs):
  """Returns the agent steps per second of repeated calls of `steps` each, after a warm-up."""
  end_of_warm_up = time.monotonic() + WARM_UP * secs
  while time.monotonic() < end_of_warm_up:
    call()
  calls, began = 0, time.monotonic()
  while time.monotonic() - began < secs * (1 - WARM_UP):
    call()
    calls += 1
  return calls * steps / (time.monotonic() - began)


def processor_times(path='/proc/stat'):
  """Returns the processor times by kind so far, in ticks; the eighth is stolen time (proc(5))."""
  with open(path, encoding='ascii') as file:
    return [int(word) for word in file.readline().split()[1:9]]


def stolen_share(before, after):
  """Returns the share of time between two `processor_times` that was stolen, in [0, 1]."""
  passed = [b - a for a, b in zip(before, after)]
  return passed[7] / sum(passed)


def best(rates):
  """Returns the setting with the largest median rate, and that median."""
  medians = {setting: statistics.median(values) for setting, values in rates.items()}
  setting = max(medians, key=medians.get)
  return setting, medians[setting]


def environment_rate(settings, num_envs, secs):
  """Measures steps of a batch of environments with random actions, in the graph as in an actor."""
  import tensorflow as tf

  import environments

  with tf.Graph().as_default():
    batch = environments.create_environment(
      settings.level_name, num_envs, settings.seed, settings.num_action_repeats, envs_per_worker=0
    )
    reset = batch.initial()
    # As in the actor, a run of the graph goes on where the one before stopped.
    carry = tf.nest.map_structure(lambda t: tf.zeros(t.shape, t.dtype), reset)

    def step(carry, _):
      return batch.step(random_actions(settings.action, num_envs), carry[1])

    last, _ = tf.scan(step, tf.range(settings.unroll_length), carry, parallel_iterations=1)
    with tf.compat.v1.Session() as session:
      session.run(reset)
      result = rate(session.make_callable(last.reward), num_envs * settings.unroll_length, secs)
  batch.close()
  return result


def random_actions(action, num_envs):
  """Returns a tensor of new random actions at each evaluation, as an agent would send them."""
  import tensorflow as tf

  import structs

  shape = [num_envs, *structs.action_shape(action)]
  if structs.action_dtype(action) == 'float32':
    return tf.random.uniform(shape, -1, 1)
  limits = [
    limit
    for part in action
    for limit in ([part.size] if part.kind == 'discrete' else [2] * part.size)
  ]
  limits = limits if len(shape) == 2 else limits[0]
  return tf.cast(tf.floor(tf.random.uniform(shape) * tf.cast(limits, tf.float32)), tf.int32)


def inference_rate(settings, num_envs, secs):
  """Measures calls of the agent on a batch of random observations."""
  import numpy as np
  import tensorflow as tf

  import nets
  import structs

  with tf.Graph().as_default():
    agent = nets.build_agent(settings.agent_name, settings)
    observations = [
      tf.Variable(random_array(spec, num_envs, np), trainable=False).read_value()
      for spec in settings.observation
    ]
    output = structs.StepOutput(
      tf.zeros([num_envs]), None, tf.zeros([num_envs], tf.bool),
      structs.as_observation(observations),
    )  # fmt: skip
    state = agent.initial_state(num_envs)
    last_action = tf.zeros(
      [num_envs, *structs.action_shape(settings.action)], structs.action_dtype(settings.action)
    )
    action = agent((last_action, output), state)[0].action
    with tf.compat.v1.Session() as session:
      session.run(tf.compat.v1.global_variables_initializer())
      return rate(session.make_callable(action), num_envs, secs)


def random_array(spec, n, np):
  """Returns noise of an observation's shape and dtype, [n, ...]."""
  noise = np.random.default_rng(0).integers(0, 255, (n, *spec.shape))
  return noise.astype(spec.dtype)


def training_rate(settings, batch_size, secs):
  """Measures updates on a batch that is always ready."""
  import tensorflow as tf

  from roles import wiring
  from runtime.cluster import LOCAL

  settings = dataclasses.replace(settings, batch_size=batch_size, queue_capacity=2 * batch_size)
  with tf.Graph().as_default():
    graph = wiring.Graph(settings, LOCAL)
    unrolls = graph.unroll_queue(0)
    queue = unrolls.queue
    side = wiring.LearnerSide(graph, unrolls, [''])
    unroll = [
      random_tensor(tf, dtype, [batch_size, *shape])
      for dtype, shape in zip(queue.dtypes, queue.shapes, strict=True)
    ]
    fill = tf.group(queue.enqueue_many([variable.read_value() for variable in unroll]))
    with tf.compat.v1.Session() as session:
      session.run(tf.compat.v1.global_variables_initializer())
      session.run(tf.compat.v1.local_variables_initializer())
      fill, stage = session.make_callable(fill), side.loop.stage_once(session)
      update = session.make_callable(list(side.update.values()))

      def step():
        fill()
        stage()
        update()

      return rate(step, batch_size * settings.unroll_length, secs)


def random_tensor(tf, dtype, shape):
  """Returns a variable of noise, since zeros could be faster to learn from."""
  if dtype == tf.bool:
    noise = tf.random.uniform(shape) < 0.05
  elif dtype.is_integer:
    noise = tf.cast(tf.random.uniform(shape, 0, 2, tf.int32), dtype)
  else:
    noise = tf.random.uniform(shape, dtype=dtype)
  return tf.compat.v1.Variable(
    noise, trainable=False, use_resource=True, collections=['local_variables']
  )


def whole_rate(flags, repeats, secs):
  """Measures a real run of experiment.py with these flags, by its metrics.csv."""
  with tempfile.TemporaryDirectory() as logdir:
    command = [sys.executable, os.path.join(ROOT, 'experiment.py'), *flags]
    environment = {k: v for k, v in os.environ.items() if not k.startswith('TF_')}
    run = subprocess.Popen(
        [*command, f'--logdir={logdir}', '--metrics_secs=1'], stdout=subprocess.DEVNULL,
        env=environment,
    )  # fmt: skip
    try:
      path = os.path.join(logdir, 'metrics.csv')
      rows, first = [], None
      while first is None or rows[-1][0] - first < secs:
        if run.poll() is not None:
          raise SystemExit(f'{command} ended with exit code {run.returncode}')
        time.sleep(0.5)
        rows = read_frames(path)
        if first is None and rows and rows[-1][1]:
          first = rows[-1][0]
    finally:
      run.send_signal(signal.SIGTERM)
      run.wait()
  start = next(row for row in rows if row[0] >= first + WARM_UP * secs)
  if rows[-1] == start:
    raise SystemExit(f'--secs={secs:g} is too short for two updates of {flags[0]}')
  return (rows[-1][1] - start[1]) / (rows[-1][0] - start[0]) / repeats


def read_frames(path):
  """Returns [(time, environment frames)] of a metrics.csv that may be growing."""
  rows = clusters.whole_rows(path)
  return [(float(row['time']), int(row['environment_frames'])) for row in rows]


def measure(args):
  """Returns the figures and the best settings, both by part."""
  from runtime import process

  process.import_tensorflow()
  import experiment

  flags = [f'--agent_name={args.agent_name}', f'--level_name={args.level_name}']
  experiment.parse_args(['throughput.py', *flags])
  settings = experiment.own_settings()
  import nets  # noqa: F401 (Sonnet has to be imported outside of any graph)

  parts = {
    'environment': (environment_rate, NUM_ENVS),
    'inference': (inference_rate, NUM_ENVS),
    'training': (training_rate, BATCH_SIZES),
  }
  rates = {name: {choice: [] for choice in choices} for name, (_, choices) in parts.items()}
  whole, secs = [], args.secs / ROUNDS
  for _ in range(ROUNDS):
    for name, (function, choices) in parts.items():
      for choice in choices:
        rates[name][choice].append(function(settings, choice, secs / len(choices)))
    whole.append(whole_rate([*flags, *WHOLE], settings.num_action_repeats, secs))
  figures, chosen = {}, {}
  for name in parts:
    chosen[name], figures[name] = best(rates[name])
  figures['serial_bound'] = 1 / sum(1 / figure for figure in figures.values())
  figures['whole'] = statistics.median(whole)
  figures['efficiency'] = figures['whole'] / figures['serial_bound']
  return {name: round(value, 3) for name, value in figures.items()}, chosen


def main():
  """Measures and prints."""
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--agent_name', default='SimpleConvNetAgent')
  parser.add_argument('--level_name', default='PongNoFrameskip-v4')
  parser.add_argument(
      '--secs', type=float, default=40,
      help='seconds per figure; 150 for the ResNet agents, whose updates take seconds each',
  )  # fmt: skip
  parser.add_argument('--json', action='store_true', help='print one JSON object and nothing else')
  args = parser.parse_args()
  before = processor_times()
  figures, chosen = measure(args)
  figures['stolen'] = round(stolen_share(before, processor_times()), 3)
  if args.json:
    print(json.dumps(figures))
    return
  for name, value in figures.items():
    setting = f'  (batch of {chosen[name]})' if name in chosen else ''
    print(f'{name:13}{value:10.3f}{setting}')


if __name__ == '__main__':
  main()
