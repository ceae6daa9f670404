"""Secondary structures.

In: sequences and a model, or files of structures. Out: pairing maps turned into contacts and base
pairs (`fold`, by `pairing_maps`), files in the field's formats both ways (`formats`), and how
well predictions agree with known structures (`evaluation`).
"""
