"""Whether what is told of a count of one agrees with it."""

import re

SEVERAL = "are|have|hold|carry|end|consist"


def disagrees(message: str) -> bool:
    """Whether a finding begins as "1 are", "1 hold" or "1 of 12 test rows are"."""
    return re.match(rf"1 (of \d+ )?(\w+ )?(rows )?({SEVERAL})\b", message) is not None
