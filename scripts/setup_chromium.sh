#!/usr/bin/env bash
# Installs Chromium, which draws the notebooks' pictures (kaleido) and runs the browser tests.
# Where it may not install anything it says what to do and succeeds: the tests then skip with a reason.
set -euo pipefail

for name in chromium chromium-browser google-chrome; do
    if command -v "$name" >/dev/null; then
        echo "Found $(command -v "$name")."
        exit 0
    fi
done

as_root=(env DEBIAN_FRONTEND=noninteractive)
[ "$(id -u)" -eq 0 ] || as_root=(sudo -n "${as_root[@]}")
if command -v apt-get >/dev/null && "${as_root[@]}" true 2>/dev/null; then
    apt=("${as_root[@]}" apt-get -q -o Acquire::Retries=3)
    "${apt[@]}" update
    "${apt[@]}" install -y --no-install-recommends chromium fonts-dejavu-core
    echo "Installed $(command -v chromium)."
    exit 0
fi

cat >&2 <<'HINT'
There is no Chromium here. Browser tests are skipped, and figures cannot be written as PNG.
  Debian:  sudo apt-get install chromium
  others:  install Chromium or Google Chrome by your system's package manager
HINT
