"""The web page, by Gradio (extra `web`): what `ernie-rna serve` and a Space on the Hub show.

In: RNAs as text, from anyone. Out: structures, pictures and files. `requests` checks the text and
what is asked of it, then computes in processes that are limited in time and memory; `page` is what
is seen, and `server` runs it.
"""
