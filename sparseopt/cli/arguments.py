"""The commands and their options, and the words that options can hold."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from sparseopt import __version__
from sparseopt.cli.bench import add_nn
from sparseopt.cli.check import add_check
from sparseopt.cli.convert import add_convert
from sparseopt.cli.prune import add_prune, add_sweep
from sparseopt.cli.table import add_table
from sparseopt.console import Parser, add_parameters, named_number, positive_integer
from sparseopt.losses import LOSSES
from sparseopt.selection import METHODS

__all__ = ["parser"]

_EXAMPLES = """examples:
  sparseopt demo                                      three data sets that come with scikit-learn
  sparseopt solve houses.csv --target price           path of group lasso solutions, best by BIC
  sparseopt solve houses.csv --target price --cv --rule 1se --plot path.png --save model.json
  sparseopt select houses.csv --target price          at most 0, 1, 2, ... columns, best by BIC
  sparseopt certify houses.csv --lam 5% --out x.json  solve, and say what is proved of the solution
  sparseopt verify x.json                             check such a file in ball arithmetic
  sparseopt check --out checks                        check the statements of the paper, write a page about them
  sparseopt regularizers                              what --penalty can name
  sparseopt nn bench --model resnet50 --sparsity .9   time a block-sparse network against the dense one
  sparseopt prune criteo-laptop data=DIR              train a network to block sparsity by a recipe
  sparseopt table criteo runs                         finished runs beside the figures of the paper
"""

_GROUPS = """\
groups: a size; sizes 5,8,3; prefix or prefix:SEP; a JSON file with a list of labels, a dict from group to columns, or
{"group": labels, "group_names": names} (file.json#key for an entry); a CSV file of column,group; a text file of labels.
"""

_SOLVE = f"""\
FILE is CSV, TSV (.gz too), Parquet, NPZ (arrays X, y, and if you like group, group_names, feature_names) or
svmlight; its content tells which. Columns of text become 0/1 columns, one group per column of text.

examples:
  sparseopt solve houses.csv --target price --groups prefix:_ --cv
  sparseopt solve genes.npz --penalty mcp --param gamma=2.5 --path 50 --plot path.png
  sparseopt solve a9a.gz --groups 5,8,5,16,5,7,14,6,5,2,2,2,5,41 --lam 5% --save model.npz
  sparseopt solve table.parquet --groups groups.json --loss poisson --rule ebic
  sparseopt solve table.csv --penalty mymodule:MyRegularizer       a class in mymodule.py in this folder

{_GROUPS}
A saved model is read back by `sparseopt.cli.load_model(file)`, or as plain JSON or NPZ; its coefficients are in the
units of the data: prediction = X @ coefficients + intercept, passed through the response of the loss.
"""

_SELECT = f"""FILE is as for `sparseopt solve`. The chosen groups are not shrunk, except by the ridge.

examples:
  sparseopt select houses.csv --target price --k 3
  sparseopt select houses.csv --target price --k 0..12 --cv --rule 1se --plot choices.png
  sparseopt select genes.npz --k 1..5 --method exact --time-limit 60 --certify proofs
  sparseopt select genes.npz --k 1,2,4 --method omp --method-option by=gain --always-in age,sex

{_GROUPS}"""

_CERTIFY = """\
FILE and options are those of `sparseopt solve`; the tolerance is 1e-10, because of a loosely solved problem little can
be proved. `sparseopt verify NAME.json` checks the file by code that shares nothing with this command.

examples:
  sparseopt certify houses.csv --target price --lam 5% --out price.json
  sparseopt certify genes.npz --penalty log --composite --lam 50% --kind optimality_gap --out genes.json
"""


def parser() -> argparse.ArgumentParser:
    """The parser of the command `sparseopt`; it raises ValueError where others would print the usage and exit."""
    main = Parser(
        prog="sparseopt",
        description="Group-sparse regression and classification, with certificates.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    main.add_argument("--version", action="version", version=f"sparseopt {__version__}")
    commands = main.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)

    def command(name: str, help: str, description: str, epilog: str | None) -> argparse.ArgumentParser:
        return commands.add_parser(
            name,
            help=help,
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    said = "Fit a group-sparse model to a file and print the groups it chooses."
    _add_solve(command("solve", "fit a file", said, _SOLVE), 1e-6)
    said = "Choose at most k groups for a file, for one k or several."
    _add_select(command("select", "choose at most k groups", said, _SELECT))
    said = "Solve for a file as `solve` does, then say what is proved of the solution, and what is not."
    certify = command("certify", "solve a file and prove what can be proved", said, _CERTIFY)
    _add_solve(certify, 1e-10)
    _add_proofs(certify)
    certify.add_argument("--out", metavar="NAME.json", help="save the certificates, with the data in NAME.npz")
    said = "Check files of certificates in ball arithmetic; exit status 0 if all are verified, 1 if one is refused."
    verify = command("verify", "check certificates", said, None)
    verify.add_argument("files", metavar="FILE.json", nargs="+")
    said = "Check the statements of arXiv 2402.17902 and extensions of them; exit status 1 if one is not as expected."
    add_check(command("check", "check the statements of the paper, or a regularizer of your own", said, None))
    said = "Networks: see `sparseopt nn bench --help`."
    add_nn(command("nn", "time block-sparse networks", said, None))
    said = "Train a network to block sparsity by a recipe, from raw data to a compressed network."
    add_prune(command("prune", "train a network by a recipe", said, None))
    said = "Run all combinations of a recipe's sweep."
    add_sweep(command("sweep", "run a recipe's grid", said, None))
    said = "Finished runs beside the tables of arXiv 2402.17902."
    add_table(command("table", "finished runs beside the paper's tables", said, None))
    said = "Convert raw rows of the Criteo data set to columns that training maps into memory."
    add_convert(command("convert", "convert raw click data", said, None))
    demo = commands.add_parser("demo", help="solve data sets that come with scikit-learn and draw their paths")
    demo.add_argument("data", nargs="?", default="all", choices=("breast", "diabetes", "digits", "all"))
    demo.add_argument("--plot", metavar="DIR", default=".", help="folder for the figures (default: the current one)")
    commands.add_parser("regularizers", help="list the regularizers that --penalty can name, and their properties")
    return main


def _add_data(command: argparse.ArgumentParser) -> None:
    """What is read, and what is minimised besides the penalty."""
    add = command.add_argument
    add("file", metavar="FILE")
    add("--target", metavar="NAME", help="column (or NPZ array) to predict; default y, or else the last column")
    add("--drop", metavar="NAME", action="append", default=[], help="leave out a column (repeatable)")
    add("--categorical", metavar="NAME", action="append", default=[], help="treat numbers as codes (repeatable)")
    add("--groups", metavar="SPEC", help="see below; default the groups in the file, or one per column")
    add("--weights", choices=("sqrt", "ones"), default="sqrt", help="group weights: root of the size (default), or 1")
    add("--loss", choices=tuple(LOSSES), help="default: guessed from the target")
    add("--loss-param", metavar="NAME=VALUE", action="append", default=[], type=named_number, help="such as delta=0.5")
    add("--no-intercept", dest="intercept", action="store_false", help="fit no intercept")
    add(
        "--standardize",
        action=argparse.BooleanOptionalAction,
        help="scale columns to unit root mean square (about the mean if there is an intercept); coefficients are "
        "reported in the units of the data, norms in the table are of the scaled columns; default for CSV and Parquet, "
        "whose columns have units, and not for NPZ and svmlight",
    )


def _add_choice(command: argparse.ArgumentParser, what: str, rules: tuple[str, ...]) -> None:
    """How one of several solutions is chosen, and what is written."""
    add = command.add_argument
    add("--cv", metavar="K", type=positive_integer, nargs="?", const=5, help="K-fold cross-validation (5)")
    add("--rule", choices=rules, help=f"how {what} is chosen: min with --cv, else bic")
    add("--jobs", metavar="N", type=int, help="folds at a time (1)")
    add("--coefficients", action="store_true", help="print the nonzero coefficients, in the units of the data")
    add("--plot", metavar="FILE", help="draw the path: .png, .pdf or .svg")
    add("--save", metavar="FILE", help="save the model: .json or .npz")
    add("--quiet", action="store_true", help="no remarks and no progress bar")


def _add_solve(command: argparse.ArgumentParser, tol: float) -> None:
    _add_data(command)
    add = command.add_argument
    add("--penalty", metavar="NAME", default="l2", help="a name of `sparseopt regularizers`, or module:Class (l2)")
    add_parameters(command, "penalty")
    add("--composite", action="store_true", help="the penalty lam q^-1(sum_g q(omega_g ||w_g||)) of arXiv 2402.17902")
    add("--l1-ratio", metavar="A", type=float, default=0.0, help="share of lam on single coefficients (0)")
    add("--ridge", metavar="R", type=float, default=0.0, help="strength of the squared norm (0)")
    which = command.add_mutually_exclusive_group()
    which.add_argument("--lam", metavar="X", type=_strength, help="one solution: lam, or as 5%% in percent of lam_max")
    which.add_argument(
        "--path", metavar="N", type=positive_integer, nargs="?", const=100, default=100, help="N values of lam (100)"
    )
    _add_choice(command, "lam", ("min", "1se", "aic", "bic", "ebic"))
    add("--tol", metavar="T", type=_tolerance, default=tol, help=f"relative duality gap or stationarity ({tol:g})")
    add("--max-epochs", metavar="N", type=positive_integer, default=10_000, help="limit of sweeps per lam (10000)")


def _add_select(command: argparse.ArgumentParser) -> None:
    _add_data(command)
    add = command.add_argument
    add("--k", metavar="K", type=_sizes, help="5, 1..8 or 1,3,5 groups; default 0, 1, ... as far as the samples reach")
    add("--always-in", metavar="NAME,...", action="append", default=[], help="groups in every model (repeatable)")
    add("--method", choices=METHODS, default="splicing", help="how groups are chosen (splicing)")
    add(
        "--method-option",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        type=_option,
        help="of the method, such as exchange=3 (repeatable)",
    )
    add("--time-limit", metavar="S", type=_tolerance, help="seconds for each k, for --method exact (60)")
    add("--ridge", metavar="R", type=float, help="strength of the squared norm (0; 1e-4 where the target is a class)")
    _add_choice(command, "k", ("min", "1se", "aic", "bic", "ebic", "bonferroni", "gap"))
    add(
        "--certify",
        metavar="PREFIX",
        nargs="?",
        const="",
        help="say what is proved of every k; save it in files of this folder, or whose names begin so",
    )
    _add_proofs(command)


def _add_proofs(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--seconds", metavar="S", type=_tolerance, default=10.0, help="time for each proof of a best choice (10)")
    add("--kind", metavar="NAME", action="append", help="certify this only (repeatable), such as duality_gap")


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


def _sizes(text: str) -> int | Sequence[int]:
    """One number of groups, or several."""
    first, dots, last = text.partition("..")
    parts = [first, last] if dots else text.split(",")
    if all(part.strip().isdecimal() for part in parts):
        numbers = [int(part) for part in parts]
        if not dots:
            return numbers[0] if len(numbers) == 1 else numbers
        if numbers[0] <= numbers[1]:
            return range(numbers[0], numbers[1] + 1)
    raise argparse.ArgumentTypeError(f"{text!r} is no number of groups 5, range 1..8 or list 1,3,5")


def _option(text: str) -> tuple[str, Any]:
    """An integer, a number, yes or no, or a word."""
    name, equals, value = (part.strip() for part in text.partition("="))
    if not name.isidentifier() or not equals or not value:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form name=value")
    if value.lower() in ("yes", "no", "true", "false"):
        return name, value.lower() in ("yes", "true")
    for number in (int, float):
        try:
            return name, number(value)
        except ValueError:
            continue
    return name, value
