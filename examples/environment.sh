#!/bin/sh
# Make the virtual environment .venv in the project's folder, with qad and its needs; does nothing where it is complete.
#   sh examples/environment.sh          what a user needs
#   sh examples/environment.sh dev      what a developer needs too
set -eu
cd "$(dirname "$0")/.."

python=${PYTHON:-}
for candidate in python3 python3.13 python3.12 python3.11; do
    [ -n "$python" ] && break
    if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2])' 2>/dev/null; then python=$candidate; fi
done
if [ -z "$python" ]; then
    echo "qad needs Python 3.11 or newer; set PYTHON to its path" >&2
    exit 2
fi

wanted=".${1:+[$1]}"
stamp=".venv/qad-installed-$(cksum <pyproject.toml | cut -d' ' -f1)${1:+-$1}"
if [ -e "$stamp" ] || [ -e "$stamp-dev" ]; then exit 0; fi

if ! "$python" -m venv .venv 2>/dev/null; then
    # Debian and Ubuntu ship Python without ensurepip
    rm -rf .venv
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        apt-get update -qq && apt-get install -y -qq python3-venv >/dev/null
        "$python" -m venv .venv
    else
        echo "cannot make a virtual environment; run: sudo apt install python3-venv" >&2
        exit 2
    fi
fi
echo "installing qad and what it needs into .venv (about 1 GB) ..." >&2
.venv/bin/python -m pip install --quiet --disable-pip-version-check --editable "$wanted"
touch "$stamp"
