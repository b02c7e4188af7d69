"""What can end a stage, each with the exit code that DVC, the runner and the flow are told."""


class StageError(Exception):
    """A reason to stop, in one line that names the setting or file, what was found and what was expected."""

    code = 1
    retryable = False


class InputError(StageError):
    """Settings or input are wrong: a repetition cannot help until the user changes something."""

    code = 2


class FetchError(StageError):
    """Something could not be fetched: the same command may succeed later."""

    code = 2
    retryable = True


class GateError(StageError):
    """A result is not fit to go on with, such as a diverged training or an export that is not at parity."""

    code = 3


class ResourceError(StageError):
    """Memory, disk or device ran out."""

    code = 4


class Interrupted(StageError):  # noqa: N818 - it is a request to stop, not a fault
    """SIGTERM or SIGINT arrived; what could be saved is saved."""

    code = 143
    retryable = True
