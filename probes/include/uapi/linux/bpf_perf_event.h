/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* The context of a program on a perf event. */
#pragma once

#include <linux/ptrace.h>

struct bpf_perf_event_data {
	bpf_user_pt_regs_t regs;
	__u64 sample_period;
	__u64 addr;
};
