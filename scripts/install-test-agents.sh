#!/bin/sh
# Install the agent CLIs that `pytest -m agents` runs, at pinned versions: install-test-agents.sh [DIRECTORY]
# They land in DIRECTORY (default: .agents in the checkout) with links in DIRECTORY/bin. No install script of
# a package runs: each ships its program in a package for the platform, and the links name that one.
set -eu

claude=2.1.197 codex=0.169.0 opencode=1.18.33 gemini=0.61.0

root=$(cd "$(dirname "$0")/.." && pwd)
dir=${1:-${RECONCILER_TEST_AGENTS:-$root/.agents}}

if ! command -v npm >/dev/null 2>&1; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        apt-get update -q && apt-get install -y -q --no-install-recommends nodejs npm
    else
        echo "install-test-agents: node >= 20 and npm are needed (Debian: apt-get install nodejs npm)" >&2
        exit 1
    fi
fi

case $(uname -s) in
    Linux) os=linux ;;
    Darwin) os=darwin ;;
    *) echo "install-test-agents: no agent CLI for $(uname -s)" >&2; exit 1 ;;
esac
case $(uname -m) in
    x86_64 | amd64) arch=x64 ;;
    aarch64 | arm64) arch=arm64 ;;
    *) echo "install-test-agents: no agent CLI for $(uname -m)" >&2; exit 1 ;;
esac

mkdir -p "$dir/bin"
npm install --prefix "$dir" --ignore-scripts --no-audit --no-fund --no-save --loglevel=error \
    "@anthropic-ai/claude-code@$claude" "@openai/codex@$codex" "opencode-ai@$opencode" "@google/gemini-cli@$gemini"

link() { # NAME FILE...: the first file that is there
    name=$1
    shift
    for file in "$@"; do
        if [ -f "$file" ]; then
            chmod +x "$file"
            ln -sf "$file" "$dir/bin/$name"
            return
        fi
    done
    echo "install-test-agents: npm installed no $name for $os-$arch" >&2
    exit 1
}

modules=$(cd "$dir/node_modules" && pwd)
link claude "$modules/@anthropic-ai/claude-code-$os-$arch/claude" "$modules/@anthropic-ai/claude-code-$os-$arch-musl/claude"
link codex "$modules/@openai/codex-$os-$arch"/vendor/*/bin/codex
link opencode "$modules/opencode-$os-$arch/bin/opencode" "$modules/opencode-$os-$arch-baseline/bin/opencode"
link gemini "$modules/.bin/gemini"
