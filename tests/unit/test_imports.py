"""What an import costs, seen from a bare interpreter: isolated, without site-packages."""

import subprocess
import sys
from pathlib import Path

import pytest

SRC = Path(__file__).parents[2] / "src"


def imported_by(statement: str) -> set[str]:
    """The modules that `statement` brings in."""
    code = f"""
import sys
sys.path.insert(0, {str(SRC)!r})
before = set(sys.modules)
{statement}
print(*sorted(set(sys.modules) - before), sep="\\n")
"""
    command = [sys.executable, "-I", "-S", "-c", code]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


def test_importing_gyoza_imports_nothing():
    assert imported_by("import gyoza") == {"gyoza"}


@pytest.mark.parametrize("layer", ["models", "policy"])
def test_a_pure_layer_needs_the_standard_library_alone(layer: str):
    names = sorted(path.stem for path in (SRC / "gyoza" / layer).glob("*.py") if path.stem != "__init__")
    assert names
    modules = imported_by(f"import gyoza.{layer}\nfrom gyoza.{layer} import {', '.join(names)}")
    strangers = {name for name in modules if name.split(".")[0] not in sys.stdlib_module_names | {"gyoza"}}
    assert strangers == set()
    layers = {name.split(".")[1] for name in modules if name.startswith("gyoza.")}
    assert layers <= {"models", layer}


def test_the_models_export_what_existing_clients_import():
    kept = (
        "Constraints EventDelivery EventEntry EventType ExecutionSummary InputSpec InputSpecs InputValidationError "
        "OpAttempt OpDefinition OpRun OpRunState RetryPolicy OpRunLockedException"
    )
    assert imported_by(f"from gyoza.models import {', '.join(kept.split())}") >= {"gyoza.models"}
