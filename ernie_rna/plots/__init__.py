"""Pictures, by matplotlib.

`drawings` draws maps of one or all heads, arcs, stems and loops, substitutions and vectors, and
saves them as PNG, SVG or PDF; `pictures` has a model make what is drawn, for command and page.
"""
