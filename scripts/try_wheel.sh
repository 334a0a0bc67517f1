#!/usr/bin/env bash
# The wheel in a fresh environment, away from the clone: score, train two steps, and JupyterLab
# answering on loopback. Takes a minute beside the installation. TORCH_PIP_ARGS as in the Makefile.
set -euo pipefail
clone=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
work=$(mktemp -d)
lab=
trap '[ -z "$lab" ] || kill -- "-$lab" 2>/dev/null || true; rm -rf "$work"' EXIT
export PIP_DISABLE_PIP_VERSION_CHECK=1 HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1
export JUPYTER_CONFIG_DIR="$work/config" JUPYTER_RUNTIME_DIR="$work/runtime"
unset PYTHONPATH

git -C "$clone" archive HEAD | tar -x -C "$work" --one-top-level=source
"${PYTHON:-python3}" -m venv "$work/venv"
pip="$work/venv/bin/python -m pip install -q"
locked="--no-deps --require-hashes --no-build-isolation --use-pep517"
cd "$work/source"
$pip $locked -r requirements-build.lock
$pip $locked -r requirements.lock
$pip ${TORCH_PIP_ARGS:-torch==2.13.0}
"$work/venv/bin/python" -m pip wheel -q --no-deps --no-build-isolation -w "$work" .
$pip --no-deps "$work"/sarlab-*.whl

mkdir "$work/elsewhere"
cd "$work/elsewhere"
rm -rf "$work/source"
sarlab="$work/venv/bin/sarlab"
"$sarlab" --help >help.txt
grep -q "sarlab train" help.txt
"$sarlab" score "Ada has 112 coins and gets 205 more. How many coins does Ada have now?" \
    '112+205=317\nAnswer: 317' 'Answer: 317'
"$sarlab" train -p steps 2 -p questions 2 -p group_size 2 -p eval_questions 4 \
    -p validation_questions 4 -p name first
test -s runs/first/summary.json
"$sarlab" inspect runs/first >inspect.txt
grep -q "^sarlab: " inspect.txt

setsid "$sarlab" lab notebooks --no-browser --port 18765 --IdentityProvider.token=try >lab.log 2>&1 &
lab=$!
for _ in $(seq 90); do
    if curl -fs "http://127.0.0.1:18765/api/contents?token=try" 2>/dev/null | grep -q 01_reward; then
        echo "The wheel scores, trains, inspects and opens JupyterLab."
        exit 0
    fi
    sleep 1
done
tail -20 lab.log >&2
echo "JupyterLab did not answer within 90 seconds." >&2
exit 1
