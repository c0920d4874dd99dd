#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# ./test.sh [PYTEST ARGS]: sets up what is missing, then style, types and all
# tests that this machine can run. pytest's summary is the last line; the status
# is 0 only when everything passed.
set -u

cd "$(dirname "${BASH_SOURCE[0]}")" || exit 1
root=$PWD
venv=$root/.venv
# shellcheck source=setup.sh
source "$root/setup.sh"

# What the tests run, and the package that has it where they differ (Debian's names).
tools=(gcc bpftool tmux strace setpriv:util-linux unshare:util-linux capsh:libcap2-bin)

# Prints the packages that are missing here.
missing_packages() {
	local tool
	for tool in "${tools[@]}"; do
		command -v "${tool%%:*}" >/dev/null || printf '%s\n' "${tool##*:}"
	done
	[[ -f /usr/include/stdio.h ]] || printf 'libc6-dev\n'
	compgen -G '/usr/lib/python3*/dist-packages/bcc/libbcc.py' >/dev/null || printf 'python3-bpfcc\n'
}

set_up() {
	local packages
	lock_setup
	mapfile -t packages < <(missing_packages | sort -u)
	if ((${#packages[@]})) && ((EUID == 0)) && [[ $(package_manager) == apt-get ]]; then
		step "installing ${packages[*]}" "install them by hand: apt-get install ${packages[*]}" \
			install_packages "${packages[@]}"
	elif ((${#packages[@]})); then
		printf 'probetop: tests that need these are skipped: %s\n' "${packages[*]}" >&2
	fi
	if [[ ! -x $venv/bin/python ]] ||
		! cmp -s <(printf '%s\n' "$root" && cat requirements-dev.lock) "$venv/stamp-dev"; then
		set_up_venv requirements-dev.lock stamp-dev
	fi
	unlock_setup
}

set_up
failed=()
dirs=()
for dir in probes tui tests bench; do
	[[ -d $dir ]] && dirs+=("$dir")
done
# check NAME COMMAND...: a failure is remembered, and the tests run all the same.
check() {
	local name=$1
	shift
	printf '== %s\n' "$name"
	"$@" || failed+=("$name")
}
check "ruff check" "$venv/bin/ruff" check "${dirs[@]}"
check "ruff format" "$venv/bin/ruff" format --check "${dirs[@]}"
check "mypy --strict" "$venv/bin/mypy" --strict "${dirs[@]}"

printf '== pytest\n'
PROBETOP_STATIC_FAILED="${failed[*]-}" "$venv/bin/python" -m pytest "$@"
status=$?
((${#failed[@]} == 0)) || status=1
exit "$status"
