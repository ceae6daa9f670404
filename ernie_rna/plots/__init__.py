"""Pictures, by matplotlib.

In: pairing maps, probabilities and base pairs. Out: maps of one or all heads (`maps`), arcs
(`arcs`) and the drawing with stems and loops (`layout`), as PNG, SVG or PDF (`figures`).
"""
