"""Pictures of paths, of cross-validation, of regularizers and of the groups they choose (needs matplotlib).

    plot_path               ||w_g|| against lam; the largest groups labelled at the ends of their lines, the others grey
    plot_cross_validation   mean held-out loss against lam, with its standard error and the two usual choices
    plot_choices            which groups are chosen for every k
    plot_sizes              held-out loss, or a criterion, against k
    plot_regularizers       q and its prox side by side; a jump is a gap between a full and an empty dot
    plot_groups             norms as a heat map: groups by lam for a path, groups by outputs for a solution

lam falls from left to right, so that models grow in reading direction. Every function draws on the axes given, or on
new ones, and returns them; none shows a window or changes a global setting.
"""

from __future__ import annotations

from sparseopt.plotting.heat import plot_groups
from sparseopt.plotting.paths import plot_cross_validation, plot_path
from sparseopt.plotting.shapes import plot_regularizers
from sparseopt.plotting.subsets import plot_choices, plot_sizes

__all__ = ["plot_choices", "plot_cross_validation", "plot_groups", "plot_path", "plot_regularizers", "plot_sizes"]
