"""Pictures, drawn with matplotlib.

`drawings` draws pairing maps, arcs, stems and loops, substitutions and vectors, and saves them as
PNG, SVG or PDF. `pictures` runs a model and draws its results, for the command and the web page.
"""
