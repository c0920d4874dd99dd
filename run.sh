#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# ./run.sh [ARGS]: sets up what is missing, then starts `probetop ARGS`.
# ./run.sh serve [ARGS]: the agent, which needs some packages more.
# ./run.sh bench [ARGS]: measures what probetop costs here, beside other tools.
# Once set up, it costs a few stat() calls and one exec: bash builtins only.
set -u

case $BASH_SOURCE in
*/*) root=${BASH_SOURCE%/*} ;;
*) root=. ;;
esac
[[ $root == /* ]] || root=$PWD/$root
root=${root%/.}
venv=$root/.venv
lock=requirements.lock
stamp=stamp-run

# The probes need the distribution's BCC; these commands need no probes.
bcc=1
for arg in "$@"; do
	case $arg in
	demo | replay | diff | attach | -h | --help | --version) bcc=0 ;;
	serve) lock=requirements-serve.lock stamp=stamp-serve ;;
	--) break ;;
	esac
done
((EUID == 0)) || bcc=0

# 0 when the virtual environment matches the lock file.
venv_ready() {
	local want have
	[[ -x $venv/bin/python && -f $venv/$stamp ]] || return 1
	IFS= read -r -d '' want <"$root/$lock"
	IFS= read -r -d '' have <"$venv/$stamp"
	[[ $have == "$root"$'\n'"$want" ]]
}

# 0 when some Python's packages hold BCC; libbcc.py tells it from other packages of that name.
bcc_ready() {
	local file
	for file in /usr/lib/python3*/{dist,site}-packages/bcc/libbcc.py \
		/usr/lib64/python3*/site-packages/bcc/libbcc.py; do
		[[ -f $file ]] && return 0
	done
	return 1
}

# Under sudo Python leaves no root-owned byte code in the user's checkout, so
# the set-up writes it as that user: 0 when none is older than its source.
code_ready() {
	local file
	[[ -n ${SUDO_UID-} ]] || return 0
	export PYTHONDONTWRITEBYTECODE=1
	for file in "$root"/probes/*.py "$root"/tui/*.py "$root"/tui/*/*.py; do
		[[ $file -nt $venv/stamp-code ]] && return 1
	done
	return 0
}

venv_ready || need_venv=1
((bcc)) && { bcc_ready || need_bcc=1; }
code_ready || need_code=1
if [[ -n ${need_venv-}${need_bcc-}${need_code-} ]]; then
	# shellcheck source=setup.sh
	source "$root/setup.sh" || exit 1
	{
		lock_setup
		[[ -z ${need_venv-} ]] || set_up_venv "$lock" "$stamp"
		# The doctor reports a missing BCC better than a failed set-up does.
		[[ -z ${need_bcc-} ]] || if [[ " $* " == *" doctor "* ]]; then (set_up_bcc); else set_up_bcc; fi
		[[ -z ${need_code-}${need_venv-} ]] || set_up_code
		unlock_setup
	} 1>&2
fi

# -P keeps the directory that the user happens to be in off root's import path.
module=tui.cli
if [[ ${1-} == bench ]]; then
	module=bench
	shift
fi
exec "$venv/bin/python" -P -m "$module" "$@"
