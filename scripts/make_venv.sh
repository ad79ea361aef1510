#!/bin/sh
# make_venv.sh PYTHON VENV: check what the machine must have, make VENV with jseg and all it needs in it, compile Jittor once.
# Does nothing when VENV is ready: made by the same version of Python, from the setup.py and by the make_venv.sh of now.
set -u
python=$1
venv=$2

fail() {
    echo "jseg: $*" >&2
    exit 2
}

command -v "$python" > /dev/null || fail "$python is not on PATH: sudo apt install python3 python3-venv python3-dev, or make PYTHON=..."
version=$("$python" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])') || fail "$python does not run"
case $version in
3.[89].* | 3.1[012].*) ;;
*)
    for other in python3.12 python3.11 python3.10 python3.9 python3.8; do
        command -v $other > /dev/null && fail "$python is $version, jseg runs on 3.8 to 3.12: use make PYTHON=$other"
    done
    fail "$python is $version, jseg runs on 3.8 to 3.12: install one of those and use make PYTHON=python3.12"
    ;;
esac
"$python" -m jseg.machine.facts || exit 2

state="$version $(cat setup.py "$0" | cksum)"
[ "$state" = "$(cat "$venv/ready" 2> /dev/null)" ] && "$venv/bin/python" -c "" 2> /dev/null && exit 0

found=$("$venv/bin/python" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2> /dev/null)
if [ "$found" != "$version" ]; then
    echo "jseg: making $venv with Python $version"
    "$python" -m venv --clear "$venv" || fail "$python -m venv $venv failed"
fi
echo "jseg: installing jseg and what it needs into $venv"
"$venv/bin/python" -m pip --disable-pip-version-check --no-input install --quiet --editable ".[plots]" > "$venv/pip.log" 2>&1 || {
    cause=$(grep -m 1 -o "ERROR: .*" "$venv/pip.log" || tail -n 1 "$venv/pip.log")
    fail "pip could not install what jseg needs ($cause; all of it in $venv/pip.log): check the network, then run make again"
}
"$venv/bin/python" -m jseg doctor || exit 2
echo "$state" > "$venv/ready"
