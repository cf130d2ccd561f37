#!/usr/bin/env bash
# cyclopts: an option typed int takes 2.5 and gives 2, 2.6 and gives 3; no error is raised.
#
# Seen with cyclopts 5.4.0, Python 3.11: text with a point is read as a float and rounded, half to even, so that
# `--limit 2.5` and `--limit 3.5` run as 2 and 4. argparse and click refuse both.
#
# Exits 0 while this is so, 1 once it is not.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check cyclopts==5.4.0

"$folder/venv/bin/python" - <<'PYTHON'
import sys

import cyclopts

app = cyclopts.App(result_action="return_value")


@app.default
def count(limit: int):
    return limit


found = {}
for text in ("2.5", "3.5", "2.6"):
    try:
        found[text] = app(["--limit", text], exit_on_error=False, print_error=False)
    except cyclopts.CycloptsError as problem:
        found[text] = f"refused: {problem}"
print(f"cyclopts {cyclopts.__version__}, Python {sys.version.split()[0]}: --limit given and got: {found}")
sys.exit(found != {"2.5": 2, "3.5": 4, "2.6": 3})
PYTHON
