"""How fast this machine's cores read memory, which bounds an answer alone: each of its tokens reads every weight once."""

import concurrent.futures
import time

import numpy

# Far beyond any cache of a processor.
READ_BYTES = 1 << 30
TRIES = 5


def read_gb_per_s(threads):
    """Gigabytes per second that `threads` threads read together: the best of some tries."""
    # The largest element is found by vector instructions in one pass, and numpy lets go of its lock meanwhile.
    parts = numpy.array_split(numpy.ones(READ_BYTES // 8, numpy.uint64), threads)
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        return READ_BYTES / 1e9 / min(duration_s(pool, parts) for _ in range(TRIES))


def duration_s(pool, parts):
    started = time.perf_counter()
    list(pool.map(numpy.max, parts))
    return time.perf_counter() - started
