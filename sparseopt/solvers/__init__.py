"""Solvers."""
from sparseopt.solvers.bcd import BlockDescent, bcd
from sparseopt.solvers.compress import compress
__all__ = ["BlockDescent", "bcd", "compress"]
