# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC2154
#
# Set-up steps, sourced by run.sh and test.sh (which set $root and $venv) only
# when something is missing. Each step says what it does in one line on stderr;
# a step that fails ends the script with one line, status 1.

LOCKED_PIP=(--quiet --disable-pip-version-check --retries 2 --require-hashes --only-binary :all:)

# fail WHY FIX: the one line of a failed step.
fail() {
	printf 'probetop: %s: %s\n' "$1" "$2" >&2
	exit 1
}

# step WHAT FIX COMMAND...: runs COMMAND quietly; its last line is the why of a failure.
step() {
	local what=$1 fix=$2 out
	shift 2
	printf 'probetop: %s\n' "$what" >&2
	out=$("$@" 2>&1 </dev/null) && return 0
	out=$(last_line "$out")
	fail "$what failed${out:+ ($out)}" "$fix"
}

# last_line TEXT: its last error line, or else its last line that is no warning.
last_line() {
	local line last='' error=''
	while IFS= read -r line; do
		case $line in
		ERROR:* | Error:* | error:* | E:*) error=$line ;;
		W:* | WARNING:* | \[notice\]*) ;;
		*[![:space:]]*) last=$line ;;
		esac
	done <<<"$1"
	printf '%.300s' "${error:-$last}"
}

# Two first starts at once would write into each other's environment.
lock_setup() {
	exec {setup_lock}<"$root/requirements.lock"
	if command -v flock >/dev/null; then flock "$setup_lock"; fi
}

# Descriptors outlive exec: an open one would hold the lock while probetop runs.
unlock_setup() {
	exec {setup_lock}<&-
}

# as_owner COMMAND...: as the owner of the checkout when root works on somebody else's.
as_owner() {
	local owner group home
	owner=$(stat -c %u "$root") group=$(stat -c %g "$root")
	if ((EUID != 0 || owner == 0)) || ! command -v setpriv >/dev/null; then
		"$@"
		return
	fi
	home=$(getent passwd "$owner" | cut -d: -f6)
	HOME=${home:-/nonexistent} setpriv --reuid "$owner" --regid "$group" --clear-groups "$@"
}

# The package manager's name, empty when none that is known here.
package_manager() {
	local name
	for name in apt-get dnf zypper pacman; do
		if command -v "$name" >/dev/null; then
			printf '%s' "$name"
			return
		fi
	done
}

# install_command PACKAGE...: what a person types, for messages.
install_command() {
	case $(package_manager) in
	apt-get) printf 'apt-get install %s' "$*" ;;
	dnf) printf 'dnf install %s' "$*" ;;
	zypper) printf 'zypper install %s' "$*" ;;
	pacman) printf 'pacman -S %s' "$*" ;;
	*) printf 'install %s' "$*" ;;
	esac
}

# Installs without questions; apt's lists may be missing (containers) or old.
install_packages() {
	export DEBIAN_FRONTEND=noninteractive
	case $(package_manager) in
	apt-get)
		local install=(apt-get -o DPkg::Lock::Timeout=120 install -y --no-install-recommends "$@")
		"${install[@]}" 2>/dev/null && return
		apt-get update && "${install[@]}"
		;;
	dnf) dnf install -y "$@" ;;
	zypper) zypper --non-interactive install "$@" ;;
	pacman) pacman -S --noconfirm --needed "$@" ;;
	*)
		echo "no package manager that is known here (apt, dnf, zypper, pacman)"
		return 1
		;;
	esac
}

# usable PYTHON: 0 when it is 3.11 or newer and its venv module is complete.
usable() {
	as_owner "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11)); ' 2>/dev/null &&
		as_owner "$1" -c 'import ensurepip, venv' 2>/dev/null
}

# Sets $python to the best Python, the distribution's first: it is there for
# every user, where one in a home directory is not.
find_python() {
	local name
	for name in /usr/bin/python3 python3 /usr/bin/python3.{14,13,12,11} python3.{14,13,12,11}; do
		if command -v "$name" >/dev/null && usable "$name"; then
			# The versioned file: a later /usr/bin/python3 may be another version.
			python=$(as_owner "$name" -c 'import os, sys; print(os.path.realpath(sys.executable))')
			return 0
		fi
	done
	return 1
}

# Installs a Python when no usable one is found.
set_up_python() {
	local sets set
	find_python && return
	case $(package_manager) in
	apt-get) sets=("python3 python3-venv" "python3.13 python3.13-venv" "python3.12 python3.12-venv"
		"python3.11 python3.11-venv") ;;
	dnf | zypper) sets=(python3 python3.13 python3.12 python3.11 python313 python312 python311) ;;
	*) sets=(python) ;;
	esac
	if ((EUID != 0)); then
		fail "no Python 3.11 or newer with its venv module is installed" \
			"run this once through sudo, or: sudo $(install_command "${sets[0]}")"
	fi
	for set in "${sets[@]}"; do
		printf 'probetop: installing %s\n' "$set" >&2
		# shellcheck disable=SC2086
		install_packages $set </dev/null >/dev/null 2>&1 && find_python && return
	done
	fail "no Python 3.11 or newer with its venv module is installed or to be had here" \
		"install one as python3.11, python3.12, python3.13 or python3.14 and start again"
}

# set_up_venv LOCK STAMP: .venv with LOCK's versions; STAMP holds where and what it is.
set_up_venv() {
	local pip_fix="check the network and the disk, then start again (or remove $venv first)"
	if ! as_owner "$venv/bin/python" -c \
		'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
		set_up_python
		step "making the virtual environment $venv" \
			"make $root writable, or remove $venv, then start again" \
			as_owner "$python" -m venv --clear "$venv"
	fi
	step "installing the locked versions of $1" "$pip_fix" \
		as_owner "$venv/bin/python" -m pip install "${LOCKED_PIP[@]}" -r "$root/$1"
	step "pointing $venv at $root" "$pip_fix" as_owner "$venv/bin/python" -c '
import pathlib, sys, sysconfig
root, lock, stamp = sys.argv[1:]
pathlib.Path(sysconfig.get_path("purelib"), "probetop.pth").write_text(root + "\n")
pathlib.Path(sys.prefix, stamp).write_text(root + "\n" + pathlib.Path(root, lock).read_text())
' "$root" "$1" "$2"
}

# The distribution's BCC: Python's package index has another package of that name.
set_up_bcc() {
	local packages
	case $(package_manager) in
	apt-get) packages=(python3-bpfcc) ;;
	dnf) packages=(python3-bcc) ;;
	zypper) packages=(python3-bcc) ;;
	pacman) packages=(python-bcc) ;;
	*) packages=(BCC) ;;
	esac
	step "installing ${packages[*]}" \
		"install BCC ($(install_command "${packages[@]}")), or see ./run.sh demo, which needs none" \
		install_packages "${packages[@]}"
}

# Byte code, written by the checkout's owner.
set_up_code() {
	step "compiling Python files" "make $root writable, then start again" \
		as_owner env -u PYTHONDONTWRITEBYTECODE "$venv/bin/python" -m compileall -q \
		"$root/probes" "$root/tui"
	as_owner touch "$venv/stamp-code"
}
