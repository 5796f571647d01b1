"""The command line: arguments, errors as sentences, exit status.

0  done; if an accuracy was not reached, a line on stderr says so        130  stopped by Ctrl-C
2  refused, with one sentence on stderr                                  141  nobody reads the output any more
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import NoReturn

from sparseopt import __version__
from sparseopt.losses import LOSSES

__all__ = ["main"]

_EXAMPLES = """examples:
  sparseopt demo                                      three data sets that come with scikit-learn
  sparseopt solve houses.csv --target price           path of group lasso solutions, best by BIC
  sparseopt solve houses.csv --target price --cv --rule 1se --plot path.png --save model.json
  sparseopt regularizers                              what --penalty can name
"""

_SOLVE = """FILE is CSV, TSV (.gz too), Parquet, NPZ (arrays X, y, and if you like group, group_names, feature_names) or
svmlight; its content tells which. Columns of text become 0/1 columns, one group per column of text.

examples:
  sparseopt solve houses.csv --target price --groups prefix:_ --cv
  sparseopt solve genes.npz --penalty mcp --param gamma=2.5 --path 50 --plot path.png
  sparseopt solve a9a.gz --groups 5,8,5,16,5,7,14,6,5,2,2,2,5,41 --lam 5% --save model.npz
  sparseopt solve table.parquet --groups groups.json --loss poisson --rule ebic
  sparseopt solve table.csv --penalty mymodule:MyRegularizer       a class in mymodule.py in this folder

groups: a size; sizes 5,8,3; prefix or prefix:SEP; a JSON file with a list of labels, a dict from group to columns, or
{"group": labels, "group_names": names} (file.json#key for an entry); a CSV file of column,group; a text file of labels.

A saved model is read back by `sparseopt.cli.load_model(file)`, or as plain JSON or NPZ; its coefficients are in the
units of the data: prediction = X @ coefficients + intercept, passed through the response of the loss.
"""


class _Parser(argparse.ArgumentParser):
    """Errors as one sentence, without the usage."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message} (see {self.prog} --help).")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the exit status is 0, or 2 after an error that was told in one sentence.

    Parameters
    ----------
    argv : list of str, optional
        Arguments after the name of the program; default those of the process.
    """
    with suppress(AttributeError, ValueError):  # names in a data file need not be in the terminal's alphabet
        sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    try:
        return _run(argv)
    except BrokenPipeError:
        with suppress(OSError, ValueError):  # what is still buffered must not raise once more at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        return _refuse("stopped by Ctrl-C.", 130)
    except (ValueError, TypeError, OSError, ImportError, MemoryError) as error:
        return _refuse(_sentence(error), 2)
    except Exception as error:
        if not type(error).__module__.startswith("numba."):
            raise
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        why = next((line for line in lines if not line.startswith("Failed in")), type(error).__name__).strip("-.: ")
        return _refuse(f"the penalty cannot be compiled ({why}): use the words of sparseopt.scalar in it.", 2)


def _run(argv: Sequence[str] | None) -> int:
    try:
        args = _parser().parse_args(argv)
    except SystemExit as finished:  # --help, --version
        return int(finished.code or 0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for line in _lines(args):
            print(line, flush=True)
    for message in dict.fromkeys(str(w.message) for w in caught if issubclass(w.category, UserWarning)):
        print(f"sparseopt: warning: {' '.join(message.split())}", file=sys.stderr)
    return 0


def _lines(args: argparse.Namespace) -> Iterable[str]:
    if args.command == "regularizers":
        from sparseopt.cli.describe import describe_regularizers

        return describe_regularizers()
    if args.command == "demo":
        from sparseopt.cli.demo import run_demo

        return run_demo(args)
    from sparseopt.cli.solve import run_solve

    if ":" in args.penalty and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    return run_solve(args)


def _refuse(message: str, status: int) -> int:
    print(f"sparseopt: {message}", file=sys.stderr)
    return status


def _sentence(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return f"{error.filename} does not exist: check the name."
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename} cannot be used: {error.strerror}."
    return " ".join(str(error).split()) or f"{type(error).__name__}."


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="sparseopt",
        description="Group-sparse regression and classification, with certificates.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"sparseopt {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)
    _add_solve(commands)
    demo = commands.add_parser("demo", help="solve data sets that come with scikit-learn and draw their paths")
    demo.add_argument("data", nargs="?", default="all", choices=("breast", "diabetes", "digits", "all"))
    demo.add_argument("--plot", metavar="DIR", default=".", help="folder for the figures (default: the current one)")
    commands.add_parser("regularizers", help="list the regularizers that --penalty can name, and their properties")
    return parser


def _add_solve(commands: argparse._SubParsersAction[_Parser]) -> None:
    solve = commands.add_parser(
        "solve",
        help="fit a file",
        description="Fit a group-sparse model to a file and print the groups it chooses.",
        epilog=_SOLVE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = solve.add_argument
    add("file", metavar="FILE")
    add("--target", metavar="NAME", help="column (or NPZ array) to predict; default y, or else the last column")
    add("--drop", metavar="NAME", action="append", default=[], help="leave out a column (repeatable)")
    add("--categorical", metavar="NAME", action="append", default=[], help="treat numbers as codes (repeatable)")
    add("--groups", metavar="SPEC", help="see below; default the groups in the file, or one per column")
    add("--weights", choices=("sqrt", "ones"), default="sqrt", help="group weights: root of the size (default), or 1")
    add("--loss", choices=tuple(LOSSES), help="default: guessed from the target")
    add("--loss-param", metavar="NAME=VALUE", action="append", default=[], type=_parameter, help="such as delta=0.5")
    add("--penalty", metavar="NAME", default="l2", help="a name of `sparseopt regularizers`, or module:Class (l2)")
    add(
        "--param",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        type=_parameter,
        help="of the penalty (repeatable)",
    )
    add("--composite", action="store_true", help="the penalty lam q^-1(sum_g q(omega_g ||w_g||)) of arXiv 2402.17902")
    add("--l1-ratio", metavar="A", type=float, default=0.0, help="share of lam on single coefficients (0)")
    add("--ridge", metavar="R", type=float, default=0.0, help="strength of the squared norm (0)")
    add("--no-intercept", dest="intercept", action="store_false", help="fit no intercept")
    add(
        "--standardize",
        action=argparse.BooleanOptionalAction,
        help="scale columns to unit root mean square (about the mean if there is an intercept); coefficients are "
        "reported in the units of the data, norms in the table are of the scaled columns; default for CSV and Parquet, "
        "whose columns have units, and not for NPZ and svmlight",
    )
    which = solve.add_mutually_exclusive_group()
    which.add_argument("--lam", metavar="X", type=_strength, help="one solution: lam, or as 5%% in percent of lam_max")
    which.add_argument(
        "--path", metavar="N", type=_positive, nargs="?", const=100, default=100, help="N values of lam (100)"
    )
    add("--cv", metavar="K", type=_positive, nargs="?", const=5, help="K-fold cross-validation (5)")
    add("--rule", choices=("min", "1se", "aic", "bic", "ebic"), help="how lam is chosen: min with --cv, else bic")
    add("--jobs", metavar="N", type=int, help="folds at a time (1)")
    add("--tol", metavar="T", type=_tolerance, default=1e-6, help="relative duality gap or stationarity (1e-6)")
    add("--max-epochs", metavar="N", type=_positive, default=10_000, help="limit of sweeps per lam (10000)")
    add("--coefficients", action="store_true", help="print the nonzero coefficients, in the units of the data")
    add("--plot", metavar="FILE", help="draw the path: .png, .pdf or .svg")
    add("--save", metavar="FILE", help="save the model: .json or .npz")
    add("--quiet", action="store_true", help="no remarks and no progress bar")


def _positive(text: str) -> int:
    value = int(text) if text.isdigit() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no integer >= 1")
    return value


def _tolerance(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number > 0")
    return value


def _strength(text: str) -> tuple[float, bool]:
    """lam, and whether it is a share of lam_max."""
    relative = text.endswith("%")
    try:
        value = float(text.removesuffix("%")) / (100.0 if relative else 1.0)
    except ValueError:
        value = -1.0
    if not 0.0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number >= 0, such as 0.1, or 5% of lam_max")
    return value, relative


def _parameter(text: str) -> tuple[str, float]:
    name, equals, value = text.partition("=")
    try:
        return name.strip(), float(value if equals else "")
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form name=number") from None
