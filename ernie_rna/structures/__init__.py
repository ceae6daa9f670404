"""Secondary structures.

Inputs are sequences and a model, or structure files. `fold` turns pairing maps (`pairing_maps`)
into contacts and base pairs, `formats` reads and writes the field's file formats, and `evaluation`
measures how well predictions agree with known structures.
"""
