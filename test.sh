#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# ./test.sh: sets up what is missing, then style, types and all tests that this machine can
# run: first those without probes, on all CPUs at once, then those of the kernel and of security,
# two files at once or one by one, then those of other kernels. The last line adds up all; the
# status is 0 only when all passed.
#
# ./test.sh PYTEST ARGS: the same set-up and checks, then one pytest with these arguments.
#
# ./test.sh --vm [KERNEL...] [PYTEST ARGS]: the tests in emulated machines that boot
# other kernels: x86_64-5.10, arm64-6.12 and so on, "default" (an x86_64 and an arm64 one,
# and one with hardware counters), "turn" (two that the commit chooses, and the one with
# counters) or "all". With PROBETOP_VM=KERNELS in the environment they run after those of the
# kernel. With PROBETOP_AGAINST=COMMIT this tree must not be slower than that.
set -u

cd "$(dirname "${BASH_SOURCE[0]}")" || exit 1
root=$PWD
venv=$root/.venv
# shellcheck source=setup.sh
source "$root/setup.sh"

# What the tests run, and the package that has it where they differ (Debian's names).
tools=(gcc g++ clang go:golang-go bpftool tmux strace cpio setpriv:util-linux unshare:util-linux
	capsh:libcap2-bin chromium mmdebstrap systemd-analyze:systemd prometheus ip:iproute2 nsenter:util-linux
	/usr/sbin/sshd:openssh-server ssh:openssh-client openssl pgrep:procps stress-ng)

# What emulated machines need beside them; what runs in an arm64 one is compiled here.
vm_tools=(qemu-system-x86_64:qemu-system-x86 qemu-system-aarch64:qemu-system-arm
	busybox:busybox-static depmod:kmod zstd aarch64-linux-gnu-gcc:gcc-aarch64-linux-gnu)

# Prints the packages that are missing here.
missing_packages() {
	local tool
	if [[ -n ${PROBETOP_VM-} ]]; then
		tools+=("${vm_tools[@]}")
		[[ -f /usr/aarch64-linux-gnu/include/stdio.h ]] || printf 'libc6-dev-arm64-cross\n'
	fi
	compgen -G '/usr/include/*/sys/sdt.h' >/dev/null || printf 'systemtap-sdt-dev\n'
	for tool in "${tools[@]}"; do
		command -v "${tool%%:*}" >/dev/null || printf '%s\n' "${tool##*:}"
	done
	[[ -f /usr/include/stdio.h ]] || printf 'libc6-dev\n'
	compgen -G '/usr/lib/python3*/dist-packages/bcc/libbcc.py' >/dev/null || printf 'python3-bpfcc\n'
}

# Services that come with packages, which nobody asked for who only runs tests.
services=(prometheus:prometheus openssh-server:ssh)

# Installs packages for their programs: no service of theirs is started, now or at the next boot.
install_tools() {
	local policy=/usr/sbin/policy-rc.d service
	if [[ ! -e $policy ]]; then
		trap 'rm -f /usr/sbin/policy-rc.d' EXIT
		printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy"
	fi
	install_packages "$@" || return
	for service in "${services[@]}"; do
		[[ " $* " == *" ${service%%:*} "* ]] || continue
		update-rc.d "${service##*:}" disable || true
		if command -v systemctl >/dev/null; then systemctl disable "${service##*:}" || true; fi
	done
}

set_up() {
	local packages
	lock_setup
	mapfile -t packages < <(missing_packages | sort -u)
	if ((${#packages[@]})) && ((EUID == 0)) && [[ $(package_manager) == apt-get ]]; then
		step "installing ${packages[*]}" "install them by hand: apt-get install ${packages[*]}" \
			install_tools "${packages[@]}"
	elif ((${#packages[@]})); then
		printf 'probetop: tests that need these are skipped: %s\n' "${packages[*]}" >&2
	fi
	if [[ ! -x $venv/bin/python ]] ||
		! cmp -s <(printf '%s\n' "$root" && cat requirements-dev.lock) "$venv/stamp-dev"; then
		set_up_venv requirements-dev.lock stamp-dev
	fi
	unlock_setup
}

only=()
if [[ ${1-} == --vm ]]; then
	shift
	PROBETOP_VM=
	while (($#)) && [[ $1 != -* ]]; do
		PROBETOP_VM+="$1 "
		shift
	done
	export PROBETOP_VM=${PROBETOP_VM:-default}
	only=(tests/vm)
fi

set_up
if [[ -n ${PROBETOP_VM-} ]]; then
	# shellcheck disable=SC2086
	chosen=$("$venv/bin/python" -m tests.vm.kernels $PROBETOP_VM) || exit 2
	export PROBETOP_VM=$chosen
	printf '== guests: %s\n' "$PROBETOP_VM"
fi
failed=()
dirs=()
for dir in probes tui tests bench screenshots; do
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
if [[ -n ${PROBETOP_AGAINST-} ]]; then
	check "bench --against $PROBETOP_AGAINST" ./run.sh bench --quick --against "$PROBETOP_AGAINST"
fi

export PROBETOP_STATIC_FAILED="${failed[*]-}"
status=0
if (($# + ${#only[@]})); then
	printf '== pytest\n'
	"$venv/bin/python" -m pytest "$@" "${only[@]}" || status=$?
else
	# Tests of probes see the whole machine, so they run alone, but for those with the mark
	# "concurrent". Emulated machines take all of a CPU: they come last.
	parallel=(tests/unit tests/pilot tests/browser tests/vm/test_machine.py)
	kernel=(tests/kernel tests/security)
	guests=(tests/vm/test_guests.py)
	counts=$(mktemp -d) && trap 'rm -rf "$counts"' EXIT
	SECONDS=0
	# One more than there are CPUs, for many of these tests wait.
	printf '== pytest, on all CPUs\n'
	PROBETOP_COUNTS=$counts/parallel "$venv/bin/python" -m pytest \
		--numprocesses "$(($(nproc) + 1))" --dist worksteal "${parallel[@]}" || status=1
	printf '== pytest, two files at once\n'
	PROBETOP_COUNTS=$counts/concurrent "$venv/bin/python" -m pytest -m concurrent \
		--numprocesses 2 --dist loadfile --no-loadscope-reorder "${kernel[@]}" || status=1
	printf '== pytest, one by one\n'
	PROBETOP_COUNTS=$counts/one_by_one "$venv/bin/python" -m pytest -m 'not concurrent' \
		"${kernel[@]}" || status=1
	printf '== pytest, guests\n'
	PROBETOP_COUNTS=$counts/guests "$venv/bin/python" -m pytest "${guests[@]}" || status=1
	"$venv/bin/python" -m tests.summary "$SECONDS" \
		"$counts"/{parallel,concurrent,one_by_one,guests} || status=1
fi
((${#failed[@]} == 0)) || status=1
exit "$status"
