#!/usr/bin/env bash
# Chromium for `make test-page`: what SSN_PROBE_CHROMIUM or PATH names, else Debian's package is installed.
set -euo pipefail
for name in "${SSN_PROBE_CHROMIUM:-chromium}" chromium-browser google-chrome; do
  if command -v "$name" >/dev/null; then exit 0; fi
done
if command -v apt-get >/dev/null; then
  if [ "$(id -u)" = 0 ]; then root=(); elif sudo -n true 2>/dev/null; then root=(sudo -n); else root=(false); fi
  "${root[@]}" apt-get update -qq && "${root[@]}" apt-get install -y -qq --no-install-recommends chromium && exit 0
fi
echo "The pages are tested in Chromium, and none was found. Install it (on Debian: apt-get install chromium), or name"
echo "another with SSN_PROBE_CHROMIUM=/path/to/chromium."
exit 1
