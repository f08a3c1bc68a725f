# Every module of a package is compiled, in several processes.
python3 - "$1/package/demo-1.0-py3-none-any.whl" <<'PY'
import sys, zipfile
zipfile.ZipFile(sys.argv[1]).extractall(".")
PY
find . -name '*.py' -exec touch -d '2024-01-02 03:04:06' {} +
python3 -m compileall -q -j 4 demo
python3 -m compileall -q -f -j 4 demo
[ "$(find demo -name '*.pyc' | wc -l)" = 61 ]
