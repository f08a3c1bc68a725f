# A virtual environment, and a package in it.
# with a date of their own, compiled modules hold hashes of their sources, and no times
export SOURCE_DATE_EPOCH=1700000000 PYTHONDONTWRITEBYTECODE=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
unset PIP_FIND_LINKS
python3 -m venv env
env/bin/python -m pip install --quiet --no-index "$1/package/demo-1.0-py3-none-any.whl"
[ "$(env/bin/python -c 'import demo.module_41 as m; print(m.f())')" = 41 ]
env/bin/python -m pip check
