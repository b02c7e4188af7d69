"""What Prefect's log keeps to itself: traces of what a line of ours tells, and the flood while its server is away."""

import logging
import sys

from pipelines.flows.outage import is_outage
from stages.errors import StageError

# Prefect's loggers that tell of each event and log line which its server did not take
UNSENT = {"prefect.events.clients": "Unable to connect", "prefect._internal.concurrency": "EventsWorker"}


class Silence(logging.Filter):
    """Tells once that Prefect's server does not answer, instead of each time that something cannot be sent."""

    told = False

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep a record unless it says that something could not be sent."""
        if UNSENT[self.name] not in record.getMessage():
            return True
        if not Silence.told:
            print("warning: Prefect's server does not answer; going on without it", file=sys.stderr, flush=True)
        Silence.told = True
        return False


def quieten() -> None:
    """Install the filters; a second call changes nothing."""
    logging.raiseExceptions = False  # Prefect's sender of log lines obeys it, too
    logging.getLogger("prefect.flow_runs").addFilter(drop_known)
    logging.getLogger("prefect.task_runs").addFilter(strip_known)
    for name in UNSENT:
        logger = logging.getLogger(name)
        if not any(isinstance(known, Silence) for known in logger.filters):
            logger.addFilter(Silence(name))


def is_known(record: logging.LogRecord) -> bool:
    """Return whether a record shows the trace of an error of ours or of a server that does not answer."""
    error = record.exc_info[1] if record.exc_info else None
    return isinstance(error, StageError) or (error is not None and is_outage(error))


def drop_known(record: logging.LogRecord) -> bool:
    """Keep a log record unless it shows a known trace: the flow's state and our own line tell it."""
    return not is_known(record)


def strip_known(record: logging.LogRecord) -> bool:
    """Keep a log record, without the trace where that is a known one."""
    if is_known(record):
        record.exc_info = None
    return True
