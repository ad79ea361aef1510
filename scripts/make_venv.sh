#!/bin/sh
# make_venv.sh PYTHON VENV PURPOSE: prepare VENV for one purpose.
#   use      jseg and what it needs, Jittor compiled     (make demo)
#   test     the same, and what the tests need            (make test)
#   emulate  as use, and CUDA's headers                   (make cuda-emulate)
#   lint     ruff alone, in the version of setup.py       (make lint)
# Does nothing when VENV is ready: made by the same version of Python, from the present setup.py
# and by the present make_venv.sh.
set -u
python=$1
venv=$2
purpose=$3

fail() {
    echo "jseg: $*" >&2
    exit 2
}

# Check what the machine must have.
command -v "$python" > /dev/null || fail "$python is not on PATH:" \
    "sudo apt install python3 python3-venv python3-dev, or make PYTHON=..."
print_version='import sys; print("%d.%d.%d" % sys.version_info[:3])'
version=$("$python" -c "$print_version") || fail "$python does not run"
case $version in
3.[89].* | 3.1[012].*) ;;
*)
    unsupported="$python is $version, jseg runs on 3.8 to 3.12"
    for other in python3.12 python3.11 python3.10 python3.9 python3.8; do
        command -v $other > /dev/null && fail "$unsupported: use make PYTHON=$other"
    done
    fail "$unsupported: install one of those and use make PYTHON=python3.12"
    ;;
esac
[ "$purpose" = lint ] || "$python" -m jseg.machine.facts || exit 2

# Stop here when an earlier run has finished the same work; what serves the tests serves any use.
state="$version $(cat setup.py "$0" | cksum)"
ready() {
    [ "$state" = "$(cat "$venv/ready-$1" 2> /dev/null)" ] && "$venv/bin/python" -c "" 2> /dev/null
}
ready "$purpose" && exit 0
[ "$purpose" = use ] && ready test && exit 0

# Make the environment.
present=$("$venv/bin/python" -c "$print_version" 2> /dev/null)
if [ "$present" != "$version" ]; then
    echo "jseg: making $venv with Python $version"
    "$python" -m venv --clear "$venv" || fail "$python -m venv $venv failed"
fi

# Install what the purpose needs.
case $purpose in
use) set -- --editable ".[plots]" ;;
emulate) set -- --editable ".[plots,emulation]" ;;
test) set -- --editable ".[plots,test]" ;;
lint) set -- "$(sed -n 's/.*"\(ruff==[0-9.]*\)".*/\1/p' setup.py)" ;;
*) fail "make_venv.sh: unknown purpose $purpose; expected use, test, emulate or lint" ;;
esac
echo "jseg: installing what \`make\` needs into $venv"
"$venv/bin/python" -m pip --disable-pip-version-check --no-input install --quiet "$@" \
    > "$venv/pip.log" 2>&1 || {
    cause=$(grep -m 1 -o "ERROR: .*" "$venv/pip.log" || tail -n 1 "$venv/pip.log")
    fail "pip could not install what jseg needs ($cause; all of it in $venv/pip.log):" \
        "check the network, then run make again"
}

# Compile Jittor, and show what this machine offers.
[ "$purpose" = lint ] || "$venv/bin/python" -m jseg doctor || exit 2
echo "$state" > "$venv/ready-$purpose"
