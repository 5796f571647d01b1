"""Designs: the matrix X, dense or sparse, behind the few products that a solver needs.

    block_dot   G_k = X_g' r_k        the gradient of one block from the residual-like rows r_k, k = 1..K
    block_add   r_k += c o (X_g d_k)  after block g moved by d; c are the samples' curvatures
    block_gram  H = X_g' diag(c) X_g  the curvature of one block
    matvec, rmatvec                   z = X W and X' R, whole

The last two are all that `RowBlocks` has, a design that is read block by block instead of being held in memory.

A kernel calls the first three without knowing which design it has, so there is one text of every algorithm. Rows r_k
lie contiguous as (K, n) arrays: K = 1 for one response, the number of outputs otherwise. X is float32 or float64;
everything computed from it is float64.

In these three, block g is given as `features[lo:hi]`, its d = hi - lo columns of X, and its arrays delta, out are
(d, K) or (d, d). The curvatures c have shape (n,), or (1,) if they are the same for all samples.
"""

from __future__ import annotations

from sparseopt.designs.columns import dense_columns, in_memory, take_columns
from sparseopt.designs.convert import Design, as_design, lay_out, require_finite, writeable_design
from sparseopt.designs.csc import Csc
from sparseopt.designs.curvature import block_curvature, block_grams, first_curvature, gradient_and_curvature
from sparseopt.designs.dense import Dense
from sparseopt.designs.gram import gram
from sparseopt.designs.residual import fits, residual
from sparseopt.designs.rows import RowBlocks
from sparseopt.designs.window import ROOM, Window, nearby, window

__all__ = [
    "Csc",
    "Dense",
    "Design",
    "RowBlocks",
    "ROOM",
    "Window",
    "as_design",
    "block_curvature",
    "block_grams",
    "dense_columns",
    "first_curvature",
    "fits",
    "gradient_and_curvature",
    "gram",
    "in_memory",
    "lay_out",
    "nearby",
    "require_finite",
    "residual",
    "take_columns",
    "window",
    "writeable_design",
]
