"""The one exception whose message is meant for the user: printed without a traceback."""


class UserError(Exception):
    """A mistake in what was asked for, or in a file that was given.

    The message says what was wrong, what is allowed and what to do.
    """


UNWRITABLE = (
    "cannot write results into {}: {}. Give a folder of yours with results_dir=FOLDER (or the "
    "environment variable OPTBENCH_RESULTS)."
)
