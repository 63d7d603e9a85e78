"""What Python programs do: planets in motion, words counted, queens placed, trees built, text
formatted and parsed. Prints a checksum of each part."""

import json
import re
import sys
import zlib

DAYS = 365.24
MASS = 39.47841760435743


class Planet:
    """A mass with a place and a speed."""

    def __init__(self, place, speed, mass):
        self.x, self.y, self.z = place
        self.vx, self.vy, self.vz = (v * DAYS for v in speed)
        self.mass = mass * MASS


def planets(steps):
    """Moves four planets around a sun by the symplectic Euler method."""
    bodies = [
        Planet((0, 0, 0), (0, 0, 0), 1),
        Planet((4.8414, -1.1603, -0.1036), (0.00166, 0.00770, -0.00007), 0.000954),
        Planet((8.3434, 4.1248, -0.4035), (-0.00277, 0.00500, 0.00002), 0.000286),
        Planet((12.894, -15.111, -0.2233), (0.00296, 0.00238, -0.00003), 0.0000437),
        Planet((15.379, -25.919, 0.1793), (0.00268, 0.00163, -0.00010), 0.0000515),
    ]
    pairs = [(a, b) for i, a in enumerate(bodies) for b in bodies[i + 1 :]]
    for _ in range(steps):
        for a, b in pairs:
            dx, dy, dz = a.x - b.x, a.y - b.y, a.z - b.z
            pull = 0.01 / (dx * dx + dy * dy + dz * dz) ** 1.5
            a.vx -= dx * b.mass * pull
            a.vy -= dy * b.mass * pull
            a.vz -= dz * b.mass * pull
            b.vx += dx * a.mass * pull
            b.vy += dy * a.mass * pull
            b.vz += dz * a.mass * pull
        for body in bodies:
            body.x += 0.01 * body.vx
            body.y += 0.01 * body.vy
            body.z += 0.01 * body.vz
    return " ".join(f"{body.x:.9f}" for body in bodies)


def words(count):
    """Makes text, splits it by a regular expression and counts."""
    state, text = 1, []
    for _ in range(count):
        state = (state * 1103515245 + 12345) % 2**31
        text.append("w%x" % (state >> 8 & 0x3FF) + (", " if state >> 20 & 3 else ".\n"))
    counts = {}
    for word in re.findall(r"w[0-9a-f]+", "".join(text)):
        counts[word] = counts.get(word, 0) + 1
    top = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:5]
    return top, zlib.crc32(json.dumps(counts, sort_keys=True).encode())


def queens(n, row=0, columns=0, left=0, right=0):
    """The number of ways to place n queens that do not attack each other."""
    if row == n:
        return 1
    free = ~(columns | left | right) & (1 << n) - 1
    found = 0
    while free:
        place = free & -free
        free ^= place
        found += queens(n, row + 1, columns | place, (left | place) << 1, (right | place) >> 1)
    return found


def trees(depth):
    """Builds and walks binary trees of tuples."""

    def build(d):
        return (build(d - 1), build(d - 1)) if d else ()

    def count(tree):
        return 1 + sum(map(count, tree))

    return [count(build(d)) for d in range(2, depth)]


def formatting(count):
    """Formats numbers, joins and parses them again."""
    lines = [f"{i:06d};{i * i % 977:>5};{i / 7:.4f};{i:x}" for i in range(count)]
    total = 0.0
    for line in lines:
        a, b, c, d = line.split(";")
        total += int(a) + int(b.strip()) * float(c) + int(d, 16)
    return round(total, 3), zlib.adler32("\n".join(lines).encode())


def main():
    """Runs each part; the first argument scales the work."""
    scale = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    print("planets", planets(1000 * scale))
    print("words", words(2000 * scale))
    print("queens", queens(7), queens(8) if scale > 4 else "")
    print("trees", trees(14))
    print("formatting", formatting(1500 * scale))


main()
