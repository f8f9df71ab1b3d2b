"""What is wrong with the value of a flag, in one sentence that says what would be right."""

import re

# What absl hands on of Python's own words: the pattern that ends its message, and what is meant.
_PLAIN = (
  (r'invalid literal for int\(\).*', 'is not a whole number'),
  (r'could not convert string to float.*', 'is not a number'),
  (r"\('Non-boolean argument to boolean flag'.*", 'is neither true nor false'),
)


def sentence(error):
  """The message of absl's `flags.Error`, or of the OSError of a `--flagfile`, on one line.

  Args:
    error: the exception.

  Returns:
    str, such as '--seed=1.5 is not a whole number'.
  """
  text = ' '.join(str(error).removeprefix('ERROR:: ').split())
  for pattern, meant in _PLAIN:
    if found := re.fullmatch(rf'flag (?P<given>--.*?): {pattern}', text):
      return f'{found["given"]} {meant}'
  return text
