"""Prints a large drawing for usvg: nested groups, transforms, styles, paths, gradients, copies."""

import math

COUNT = 8000

print('<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="0 0 1000 1000">')
print("<style>.a { fill: #c33 } .b > path { stroke: navy; stroke-width: 2 } #deep { opacity: 0.5 }</style><defs>")
for n in range(40):
    print(f'<linearGradient id="g{n}" x2="{n % 7 / 7:.3f}" gradientTransform="rotate({n * 9})">')
    print(f'<stop offset="0.1" stop-color="hsl({n * 9}, 70%, 50%)"/><stop offset="0.9" stop-color="#{n * 4096 + 77:06x}"/>')
    print("</linearGradient>")
print('<path id="star" d="M0-10 L3 8 L-9-3 L9-3 L-3 8 Z"/></defs>')
for n in range(COUNT):
    x, y = 500 + n / 4 * math.cos(n), 500 + n / 4 * math.sin(n)
    points = " ".join(f"{x + n % 9 * math.cos(k):.3f},{y + n % 11 * math.sin(k):.3f}" for k in range(12))
    curve = " ".join(f"c{k} {n % 5} {k * 2}-{n % 3} {k + 1}.5 {n % 4}" for k in range(8))
    print(f'<g class="{"ab"[n % 2]}" transform="rotate({n % 360} {x:.2f} {y:.2f}) scale(1.{n % 10})">')
    print(f'<path d="M{x:.3f} {y:.3f}{curve}a{n % 7 + 1} 4 {n % 90} 0 1 5 5z" fill="url(#g{n % 40})"/>')
    print(f'<g opacity="0.{n % 9 + 1}"><polygon points="{points}" style="stroke:#0{n % 10}f;fill:none"/>')
    print(f'<rect x="{x:.1f}" y="{y:.1f}" width="{n % 20 + 1}" height="5%" rx="2"/>')
    print(f'<use xlink:href="#star" x="{n % 1000}" y="{n * 7 % 1000}" fill="rgb({n % 256}, 10, 90)"/></g></g>')
print("</svg>")
