#!/bin/sh
# compile_operator.sh --python=PYTHON TOOL --cc_path=COMPILER SOURCE FLAG...: what Jittor starts to
# compile an operator, in place of PYTHON TOOL. Its tool compiles to assembly with debug lines,
# rewrites the stores that the source marks with @begin, and assembles. Where nothing is marked, the
# compiler alone makes the same code in half the time.
python=${1#--python=}
shift
case $1 in
*/asm_tuner.py)
    if ! grep -q "@begin" "$3"; then
        compiler=${2#--cc_path=}
        shift 2
        exec "$compiler" "$@"
    fi
    ;;
esac
exec "$python" "$@"
