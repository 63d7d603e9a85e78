"""Work for a real Python: big numbers, a sieve, JSON, regular expressions, hashing, files."""
import hashlib
import json
import os
import re
import sys
from collections import Counter
from decimal import Decimal, getcontext
from functools import lru_cache


def pi_digits(count):
    """The spigot of Gibbons: the first `count` decimal digits of pi, exactly."""
    q, r, t, k, n, l = 1, 0, 1, 1, 3, 3
    digits = []
    while len(digits) < count:
        if 4 * q + r - t < n * t:
            digits.append(str(n))
            q, r, n = 10 * q, 10 * (r - n * t), (10 * (3 * q + r)) // t - 10 * n
        else:
            q, r, t, k, n, l = q * k, (2 * q + r) * l, t * l, k + 1, (q * (7 * k + 2) + r * l) // (t * l), l + 2
    return "".join(digits)


@lru_cache(maxsize=None)
def fibonacci(n):
    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)


def primes_below(limit):
    sieve = bytearray([1]) * limit
    sieve[0:2] = b"\0\0"
    for i in range(2, int(limit**0.5) + 1):
        if sieve[i]:
            sieve[i * i :: i] = bytes(len(range(i * i, limit, i)))
    return sum(sieve)


print("python", sys.version_info.major, "on", sys.platform)
print("pi", pi_digits(60))
# Upwards, since this build of CPython has little stack for a recursion of 200 levels.
print("fibonacci(200)", [fibonacci(n) for n in range(201)][-1])
print("primes below 100000:", primes_below(100_000))
getcontext().prec = 40
print("sqrt(2)", Decimal(2).sqrt())
print("sha256", hashlib.sha256(b"coracle" * 1000).hexdigest())
words = re.findall(r"[a-z]+", "the quick brown fox jumps over the lazy dog and the other fox".lower())
print("json", json.dumps(dict(sorted(Counter(words).items())), sort_keys=True))

with open("/tmp/lines.txt", "w") as out:
    for i in range(1000):
        out.write(f"{i * i}\n")
with open("/tmp/lines.txt") as lines:
    print("sum of squares", sum(map(int, lines)), "in", os.stat("/tmp/lines.txt").st_size, "bytes")
os.remove("/tmp/lines.txt")

try:
    [][1]
except IndexError as error:
    print("caught", type(error).__name__, error)
