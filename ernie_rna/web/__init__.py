"""The web page, by Gradio (extra `web`): what `ernie-rna serve` and a Space on the Hub show.

In: RNAs as text, from anyone. Out: structures, pictures and files. `inputs` checks the text before
anything is computed; `tasks` are the jobs, which run in processes of their own, limited in time and
memory (`workers`); `page` is what is seen, and `server` runs it in a temporary folder (`folder`).
"""
