"""Known vulnerabilities of the pinned packages, by pip-audit.

It fails only for a vulnerability. pip-audit says "No known vulnerabilities found" also where its service knew none of
the packages, so its list is read; where no package was audited, that is said, and nothing fails.
"""

import json
import subprocess
import sys
from pathlib import Path

PINS = Path(__file__).parents[1] / "ssn_probe" / "constraints.txt"
SECONDS = 300


def judge(output: str, problem: str) -> tuple[str, int]:
    """What pip-audit's JSON and its error output mean: a sentence and the exit status."""
    try:
        packages = json.loads(output)["dependencies"]
    except (ValueError, KeyError, TypeError):
        return (
            f"skipped: no vulnerability service could be asked ({(problem.strip() or 'no answer').splitlines()[-1]})",
            0,
        )
    audited = [one for one in packages if "skip_reason" not in one]
    found = [f"{one['name']} {one['version']}: {vuln['id']}" for one in audited for vuln in one["vulns"]]
    if found:
        return "\n".join(["Known vulnerabilities of pinned packages; `make lock` may have a fix:", *found]), 1
    if not audited:
        return f"skipped: the vulnerability service knows none of the {len(packages)} pinned packages", 0
    return f"{len(audited)} of {len(packages)} pinned packages were audited: no known vulnerability", 0


def main() -> int:
    command = [sys.executable, "-m", "pip_audit", "--no-deps", "--disable-pip", "--progress-spinner", "off"]
    try:
        done = subprocess.run(
            [*command, "--format", "json", "-r", PINS],
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=SECONDS,
        )
    except subprocess.TimeoutExpired:
        sentence, status = judge("", f"none within {SECONDS} seconds")
    else:
        sentence, status = judge(done.stdout, done.stderr)
    print(f"audit: {sentence}")
    return status


if __name__ == "__main__":
    sys.exit(main())
