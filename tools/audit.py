"""Look every package of the locks up among the known vulnerabilities: `make audit`, by pip-audit.

Asked is PyPI itself. A mirror of its index has no such data and answers "not found", which pip-audit passes over;
here a package that could not be looked up is not a clean one. What is written behind the command goes to pip-audit:
`-s osv` asks osv.dev instead, `--ignore-vuln ID` passes a known one over.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tools.lessons import ROOT

LOCKS = ("requirements.txt", "tools/uv.txt", "lessons/12_llamafactory/requirements.txt")
AUDIT = ["-m", "pip_audit", "--disable-pip", "--require-hashes", "--format=json", "--desc=off", "--aliases=on"]
REACH = (
    "The service must be reached itself, a mirror does not have its data: behind a proxy set HTTPS_PROXY, or ask "
    "another service: .venv/bin/python -m tools.audit -s osv"
)


def main(options: Sequence[str] | None = None) -> int:
    """Print what is known about each lock's packages; 1 when one is vulnerable or was not looked up, else 0."""
    options = sys.argv[1:] if options is None else options
    vulnerable, unseen = [], []
    for lock in LOCKS:
        found, missing = audit(ROOT / lock, options)
        vulnerable += found
        unseen += [missing] if missing else []
    faults = [*vulnerable, *unseen, *([REACH] if unseen else [])]
    print("\n".join(faults) if faults else "No known vulnerabilities.")
    return 1 if faults else 0


def audit(lock: Path, options: Sequence[str] = ()) -> tuple[list[str], str]:
    """Of the packages that a lock has for this Python: the vulnerable, a line each, and what was not looked up."""
    command = [sys.executable, *AUDIT, "--progress-spinner=off", "-r", str(lock), *options]
    done = subprocess.run(command, capture_output=True, text=True)
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except ValueError:
        said = (done.stderr.strip() or "nothing").splitlines()[-1]
        return [], f"{lock}: the audit did not come to an end: {said}"
    unknown = [package["name"] for package in packages if "skip_reason" in package]
    print(f"{lock}: {len(packages) - len(unknown)} of {len(packages)} packages looked up", flush=True)
    found = [
        f"{package['name']} {package['version']}: {' = '.join([one['id'], *one['aliases']])}, "
        + (f"mended in {' or '.join(one['fix_versions'])}: make lock" if one["fix_versions"] else "not mended yet")
        for package in packages
        for one in package.get("vulns", [])
    ]
    named = ", ".join(unknown[:5]) + (", …" if len(unknown) > 5 else "")
    return found, f"{lock}: not looked up: {len(unknown)} of {len(packages)} packages ({named})" if unknown else ""


if __name__ == "__main__":
    sys.exit(main())
