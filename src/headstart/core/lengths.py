"""How long a batch is whose rows differ in length: one of few lengths, since kernels are made for every one they meet.

Measured on two cores with AMX (MiniLM-L6, batches of 16 texts): oneDNN took 35 ms for the first training step of a
length, of 170 ms, and forgot the kernels of the first lengths before it met the last. An epoch of 126 updates met 92
lengths and took 32 s; with 32 lengths, and 2 % more places that hold nothing, it takes 27 s.
"""

OCTAVE = 8  # lengths between one and twice as much


def evened(longest: int, most: int) -> int:
    """Places for rows of which the longest has so many, no more than ``most`` unless it has itself.

    >>> [evened(longest, 100) for longest in (7, 16, 17, 33, 65, 97)]
    [7, 16, 18, 36, 72, 100]
    """
    step = max(1, 2 ** (longest.bit_length() - 1) // OCTAVE)
    return min(-(-longest // step) * step, max(longest, most))
