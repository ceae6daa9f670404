"""The proof that a converted model computes what the authors' code computes.

In: a converted folder, and values that the authors' code or their publication gave. Out: the
largest differences, beside float64 as the judge, and the table that prints them.
"""
