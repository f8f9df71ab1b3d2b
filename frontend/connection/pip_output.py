"""Why pip, or the making of a virtual environment, failed: the lines of its output that say so."""

import re

# What pip and venv print beside the reason.
_NOISE = re.compile(
  r'\[notice\]|WARNING|DEPRECATION|Looking in |Collecting |Using cached |Requirement already|note: '
  r'|hint: |Failing command:|You should consider upgrading|  *[-|]{4}|╰|$',
  re.IGNORECASE,
)
# The lines below the error of a hash say which came.
_ERROR = re.compile(
  r'(ERROR|error|fatal|\w*Error|OSError)\b[^:]*: |Expected sha\d+ |Got +[0-9a-f]{32}'
)
MOST_LINES = 3
_MOST_LETTERS = 1000


def reason(output):
  """The sentence for an output that ended with a failure.

  Args:
    output: text of several lines, perhaps cut off at its beginning.

  Returns:
    The last lines that begin as errors do, without repetitions; without any, the last ones that
    are no notices.
  """
  lines = [line.rstrip() for line in output.splitlines() if not _NOISE.match(line.strip())]
  errors = [line for line in lines if _ERROR.match(line.strip())]
  found = list(dict.fromkeys(line.strip() for line in errors or lines))[-MOST_LINES:]
  return ' / '.join(found)[:_MOST_LETTERS]
