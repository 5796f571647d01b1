"""Steps in one penalised block, in compiled code, on a quadratic model of the loss with curvature H = V diag(e) V'.

    Exact      q = L2: theta = V'w solves theta_i = a_i r / ((e_i + ridge) r + lam_g) with r = ||theta|| and
               a = e o theta_0 - V' grad: one equation for r. Newton on 1 / sqrt(s(r)) - 1, where
               s(r) = sum_i a_i^2 / ((e_i + ridge) r + lam_g)^2; it is concave, so the iterates rise to the root
    Concave    q concave: a prox-gradient step on the model, which may jump to or from zero, then steps `Exact` with
               lam_g q'(r), the slope at the last r, in place of lam_g: each lowers a majoriser (Zou, Li 2008)
    Proximal   any q: prox-gradient steps on the model with step 1 / max(e), until they stop moving

Each kind is a type of its own, so that a kernel holds the code of one of them. Their methods:

    step       fills work.new; returns d'Hd of the step or an upper bound of it, max(e) times the length of the first
               prox move (`Exact`: of the step), and the new sum of costs
    costs      the sum of costs of all blocks in use; only coupled groups have any, problem (1)
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sparseopt.jit import vectorized_kernel
from sparseopt.solvers.blocks import TIE, block_norm, fill_curvatures, from_basis, norm_of, to_basis
from sparseopt.structs import compiled

__all__ = ["Concave", "Exact", "Proximal"]

TANGENTS = 10  # steps with the slope renewed; each costs d, a visit n d
SETTLED = 0.03  # share of the move that the last of them may still change
INNER_STEPS = 25  # prox-gradient steps per visit of a block; each costs d^2, a visit n d


@compiled
class Exact(NamedTuple):
    """q = L2, no l1 term: the minimiser of the model."""

    def step(self, work, d, was_zero, vals, at, vecs, vec_at, shape, omega, terms, total):
        gradient, new, a, theta, e, squares = work.gradient, work.new, work.a, work.theta, work.e, work.squares
        lam, ridge = terms.block * omega, terms.ridge
        n_rows = gradient.shape[0]
        if was_zero and norm_of(gradient, d) <= lam * TIE:
            return 0.0, 0.0, total
        flat = vec_at < 0
        fill_curvatures(vals, at, vec_at, d, e)
        top = e[d - 1]
        for j in range(d):
            squares[j] = 0.0
        for k in range(n_rows):
            to_basis(vecs, vec_at, d, gradient, a, k)
            if was_zero:
                for j in range(d):
                    theta[k, j] = 0.0
            else:
                to_basis(vecs, vec_at, d, work.old, theta, k)
            for j in range(d):
                a[k, j] = e[j] * theta[k, j] - a[k, j]
                squares[j] += a[k, j] * a[k, j]
        size = 0.0
        for j in range(d):
            size += squares[j]
        size = np.sqrt(size)
        r = 0.0
        if size > lam * TIE and top + ridge > 0.0:
            low = (size - lam) / (top + ridge)
            guess = 0.0 if was_zero else norm_of(theta, d)
            r = low if flat else _secular_root(squares, d, e, lam, ridge, low, max(low, guess))
        factors = squares  # which have served
        for j in range(d):
            factors[j] = r / ((e[j] + ridge) * r + lam) if r > 0.0 else 0.0
        moved = 0.0
        length = 0.0
        for k in range(n_rows):
            for j in range(d):
                step = a[k, j] * factors[j] - theta[k, j]
                theta[k, j] += step
                moved += e[j] * step * step
                length += step * step
            from_basis(vecs, vec_at, d, theta, new, k)
        return moved, top * np.sqrt(length), total

    def costs(self, shape, groups, blocks, W):
        return 0.0


@compiled
class Concave(NamedTuple):
    """q concave, groups separable, no l1 term: prox and tangents, see the top."""

    def step(self, work, d, was_zero, vals, at, vecs, vec_at, shape, omega, terms, total):
        gradient, old, new, a, theta, here = work.gradient, work.old, work.new, work.a, work.theta, work.here
        squares, e = work.squares, work.e
        n_rows = gradient.shape[0]
        flat = vec_at < 0
        fill_curvatures(vals, at, vec_at, d, e)
        L = max(e[d - 1], 1e-300)
        for j in range(d):
            squares[j] = 0.0
        u = 0.0
        for k in range(n_rows):
            to_basis(vecs, vec_at, d, gradient, a, k)
            to_basis(vecs, vec_at, d, old, theta, k)
            for j in range(d):
                u += (L * theta[k, j] - a[k, j]) ** 2
                here[k, j] = a[k, j]
                a[k, j] = e[j] * theta[k, j] - a[k, j]
                squares[j] += a[k, j] * a[k, j]
        u = np.sqrt(u) / (L + terms.ridge)
        r = shape.shrink(u, terms.block / (L + terms.ridge), omega, 0.0) if u > 0.0 else 0.0
        factor = r / u / (L + terms.ridge) if u > 0.0 else 0.0
        first = 0.0
        for k in range(n_rows):
            for j in range(d):
                first += (factor * (L * theta[k, j] - here[k, j]) - theta[k, j]) ** 2
        first = L * np.sqrt(first)
        size = 0.0
        for j in range(d):
            size += squares[j]
        size = np.sqrt(size)
        strength = 0.0
        for _ in range(TANGENTS if r > 0.0 else 0):
            before = r
            strength = terms.block * shape.tangent(r, omega, 0.0)
            low = (size - strength) / (L + terms.ridge)
            r = 0.0
            if size > strength * TIE:
                r = low if flat else _secular_root(squares, d, e, strength, terms.ridge, low, max(low, before))
            if r == 0.0 or abs(r - before) <= SETTLED * abs(r - norm_of(old, d)):
                break
        moved = 0.0
        for k in range(n_rows):
            for j in range(d):
                below = (e[j] + terms.ridge) * r + strength
                there = theta[k, j] if below <= 1e-12 * L * r else a[k, j] * r / below
                there = there if r > 0.0 else 0.0
                moved += e[j] * (there - theta[k, j]) ** 2
                theta[k, j] = there
            from_basis(vecs, vec_at, d, theta, new, k)
        return moved, first, total

    def costs(self, shape, groups, blocks, W):
        return 0.0


@compiled
class Proximal(NamedTuple):
    """Any q, l1 term and ridge: prox-gradient steps on the model."""

    def step(self, work, d, was_zero, vals, at, vecs, vec_at, shape, omega, terms, total):
        gradient, old, new, here, a, theta = work.gradient, work.old, work.new, work.here, work.a, work.theta
        e = work.e
        n_rows = gradient.shape[0]
        rest = max(total - shape.cost(norm_of(old, d), omega), 0.0)
        flat = vec_at < 0
        fill_curvatures(vals, at, vec_at, d, e)
        L = max(e[d - 1], 1e-300)
        for k in range(n_rows):
            for j in range(d):
                new[k, j] = old[k, j]
                here[k, j] = gradient[k, j]
        first = 0.0
        moved = 0.0
        for count in range(1 if flat else INNER_STEPS):
            u = 0.0
            for k in range(n_rows):
                for j in range(d):
                    v = L * new[k, j] - here[k, j]
                    v = (max(v - terms.entry, 0.0) + min(v + terms.entry, 0.0)) / (L + terms.ridge)
                    a[k, j] = v
                    u += v * v
            u = np.sqrt(u)
            factor = 0.0
            if u > 0.0:
                shrunk = shape.shrink(u, terms.block / (L + terms.ridge), omega, rest) if terms.block > 0.0 else u
                factor = shrunk / u
            step = 0.0
            travelled = 0.0
            for k in range(n_rows):
                for j in range(d):
                    v = a[k, j] * factor
                    step += (v - new[k, j]) ** 2
                    new[k, j] = v
                    a[k, j] = v - old[k, j]
                    travelled += a[k, j] * a[k, j]
            step = np.sqrt(step)
            travelled = np.sqrt(travelled)
            if count == 0:
                first = L * step
            moved = L * travelled * travelled
            if step <= 0.02 * travelled or step == 0.0 or flat:
                break
            for k in range(n_rows):
                to_basis(vecs, vec_at, d, a, theta, k)
                for j in range(d):
                    theta[k, j] *= e[j]
                from_basis(vecs, vec_at, d, theta, a, k)
                for j in range(d):
                    here[k, j] = gradient[k, j] + a[k, j]
        return moved, first, rest + shape.cost(norm_of(new, d), omega)

    def costs(self, shape, groups, blocks, W):
        total = 0.0
        for g in range(len(groups.omega)):
            if groups.omega[g] > 0.0 and blocks.slot[g] >= 0:
                total += shape.cost(block_norm(groups, g, W), groups.omega[g])
        return total


@vectorized_kernel
def _secular_root(squares, d, e, lam, ridge, low, r):
    """r with sum_i squares_i / ((e_i + ridge) r + lam)^2 = 1, from a guess and a lower bound; lam >= 0."""
    if lam == 0.0:
        total = 0.0
        for j in range(d):
            total += squares[j] / (e[j] + ridge) ** 2 if e[j] + ridge > 0.0 else 0.0
        return np.sqrt(total)
    for count in range(100):
        s = 0.0
        slope = 0.0
        for j in range(d):
            inverse = 1.0 / ((e[j] + ridge) * r + lam)
            part = squares[j] * inverse * inverse
            s += part
            slope += part * (e[j] + ridge) * inverse
        step = s * (np.sqrt(s) - 1.0) / slope if slope > 0.0 else 0.0
        if count > 0 and step <= 1e-15 * r:  # the iterates rise after the first step: the rest is rounding
            break
        r = max(r + step, low)
        if abs(step) <= 1e-6 * r:  # Newton doubles the digits
            break
    return r
