"""The one exception whose message is meant for the user: printed without a traceback."""

LONGEST = 2000  # characters of a message


class UserError(Exception):
    """A mistake in what was asked for, or in a file that was given.

    The message says what was wrong, what is allowed and what to do.
    """

    def __str__(self) -> str:
        return shorten(super().__str__())


def shorten(message: str) -> str:
    """A message without the middle of what nobody would read to its end."""
    if len(message) <= LONGEST:
        return message
    return f"{message[: LONGEST // 2]} ... {message[-LONGEST // 2 :]}"


UNWRITABLE = (
    "cannot write results into {}: {}. Give a folder of yours with results_dir=FOLDER (or the "
    "environment variable OPTBENCH_RESULTS)."
)
