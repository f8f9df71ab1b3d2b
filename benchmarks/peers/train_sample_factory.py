"""Trains with sample-factory on a Gymnasium id; benchmarks/peers/compare.py starts and times it.

  PEER/bin/python benchmarks/peers/train_sample_factory.py --env=CartPole-v1 ...

All arguments are sample-factory's own. Needs a virtual environment of its own (Python 3.11):

  pip install torch==2.13.0 sample-factory==2.1.1 gymnasium==0.29.1 numpy==1.26.4
  pip install mujoco==3.3.0 ale-py==0.9.1    # for these environments
"""

import sys

import gymnasium
from sample_factory.algo.learning.learner import Learner
from sample_factory.cfg.arguments import parse_full_cfg, parse_sf_args
from sample_factory.envs.env_utils import register_env
from sample_factory.train import run_rl

# With V-trace, version 2.1.1 reads advantages for its summaries that it never computed. Set here,
# since the learner's process imports this file anew.
Learner._record_summaries = lambda learner, values: {}


def make_environment(name, cfg=None, env_config=None, render_mode=None):
  """Returns the environment, as sample-factory calls it."""
  del cfg, env_config
  return gymnasium.make(name, render_mode=render_mode)


def main():
  """Trains until --train_for_seconds is over."""
  parser, args = parse_sf_args()
  register_env(args.env, make_environment)
  return run_rl(parse_full_cfg(parser))


if __name__ == '__main__':
  sys.exit(main())
