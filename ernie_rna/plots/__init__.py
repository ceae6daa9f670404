"""Pictures, by matplotlib.

In: pairing maps, base pairs, scores and vectors. Out: maps of one or all heads (`maps`), arcs
(`arcs`), the drawing with stems and loops (`layout`), `substitutions` and embeddings
(`vectors`), as PNG, SVG or PDF (`figures`).
"""
