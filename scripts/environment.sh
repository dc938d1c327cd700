# Makes the environment .venv in this checkout and installs tinv in it; sourced by the other scripts.
#
# virtualenv stands in for `python3 -m venv`, which Debian leaves out of its Python. EXTRAS is '' or '[dev]'.
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if [ ! -x .venv/bin/python ]; then
    echo "making the environment .venv (up to 6 GB with the CUDA build of torch; some minutes)" >&2
    python3 -m pip install -q --target .venv-tool virtualenv
    PYTHONPATH=.venv-tool python3 -m virtualenv -q .venv
fi
.venv/bin/pip install -q -c constraints.txt -e ".${EXTRAS:-}"
