"""The web page, built with Gradio (extra `web`), of `ernie-rna serve` and of a Space on the Hub.

In: RNAs as text, from any visitor. Out: structures, pictures and files. `requests` checks a
visitor's input, then computes in processes with limited time and memory; `page` builds the page,
and `server` runs it.
"""
