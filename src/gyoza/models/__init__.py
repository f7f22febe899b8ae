"""What things are: one source of truth for server, worker, client and command line."""

from gyoza.models.definition import EventDelivery as EventDelivery
from gyoza.models.definition import InputSpec as InputSpec
from gyoza.models.definition import InputSpecs as InputSpecs
from gyoza.models.definition import OpDefinition as OpDefinition
from gyoza.models.definition import RetryPolicy as RetryPolicy
from gyoza.models.errors import InputValidationError as InputValidationError
from gyoza.models.errors import OpRunLockedException as OpRunLockedException
from gyoza.models.lifecycle import EventType as EventType
from gyoza.models.lifecycle import OpRunState as OpRunState
from gyoza.models.resources import Constraints as Constraints
from gyoza.models.run import EventEntry as EventEntry
from gyoza.models.run import ExecutionSummary as ExecutionSummary
from gyoza.models.run import OpAttempt as OpAttempt
from gyoza.models.run import OpRun as OpRun
