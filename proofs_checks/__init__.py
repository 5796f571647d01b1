"""One module per statement of the paper: the statement as text, and a check of it that runs.

Lemmas and theorems of *SequentialAttention++ for Block Sparsification* (Yasuda, Axiotis, Fu, Bateni, Mirrokni,
arXiv 2402.17902) are tried on random and on adversarial instances, with the public names of sparseopt only.
"""
