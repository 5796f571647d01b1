"""One file per table, figure or benchmark, built from the public names of sparseopt only.

Each module is a script with its configuration on top and a `main`: run it with
`python -m sparseopt.experiments.<name>`. Settings worth sharing are files in `recipes/`, which wheels carry.
"""
