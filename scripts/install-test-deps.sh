#!/bin/sh
# Install what the end-to-end tests run for real: OpenSSH's server, tmux, git and several shells.
# Exits non-zero only when something required is missing and cannot be installed here.
set -u

PATH=$PATH:/usr/sbin:/sbin:/usr/local/sbin
required="sshd:openssh-server ssh:openssh-client tmux:tmux git:git"
optional="zsh:zsh busybox:busybox mksh:mksh"
case $(uname -s) in
Linux) required="$required ip:iproute2 ps:procps unshare:util-linux" ;;
esac

missing_packages() {
    for pair; do
        command -v "${pair%%:*}" >/dev/null 2>&1 || printf '%s ' "${pair##*:}"
    done
}

# Word splitting is wanted: each list is words.
# shellcheck disable=SC2086
missing=$(missing_packages $required)
# shellcheck disable=SC2086
wanted=$(missing_packages $optional)
[ -n "$missing$wanted" ] || exit 0

if [ "$(uname -s)" = Darwin ]; then
    echo "missing: $missing$wanted"
    echo "  brew install tmux git zsh mksh     # sshd comes with macOS"
    [ -z "$missing" ]
    exit
fi

if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null 2>&1; then
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive apt-get update -qq &&
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing $wanted
    # shellcheck disable=SC2086
    missing=$(missing_packages $required)
fi

if [ -n "$missing" ]; then
    echo "missing: $missing" >&2
    echo "  sudo apt-get install $missing$wanted" >&2
    exit 1
fi
[ -z "$wanted" ] || echo "tests with other shells are fewer without: $wanted"
exit 0
