/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * What BCC adds to C, declared so that clang and clangd read the programs without BCC. Only tools
 * include it: the loader compiles with BCC's own header, and BCC rewrites the methods of maps into
 * calls of helpers.
 */
#pragma once

#include <linux/types.h>
#include <uapi/linux/bpf_perf_event.h>

struct bpf_raw_tracepoint_args {
	__u64 args[0];
};

#define BPF_F_TABLE(kind, _key, _leaf, _name, _entries, _flags)                          \
	struct _name##_table {                                                           \
		_key key;                                                                \
		_leaf leaf;                                                              \
		char entries[(_entries) > 0 ? 1 : -1];                                   \
		_leaf *(*lookup)(_key *);                                                \
		int (*insert)(_key *, _leaf *);                                          \
		int (*update)(_key *, _leaf *);                                          \
		int (*delete)(_key *);                                                   \
		int (*perf_read)(_key);                                                  \
		int (*perf_counter_value)(_key, void *, u32);                            \
	};                                                                               \
	extern struct _name##_table _name
#define BPF_TABLE(kind, _key, _leaf, _name, _entries) \
	BPF_F_TABLE(kind, _key, _leaf, _name, _entries, 0)
#define BPF_HASH(_name, _key, _leaf, _entries) BPF_TABLE("hash", _key, _leaf, _name, _entries)
#define BPF_PERF_ARRAY(_name, _entries) BPF_TABLE("perf_array", int, u32, _name, _entries)
#define BPF_RINGBUF_OUTPUT(_name, _pages)                                                \
	struct _name##_table {                                                           \
		char pages[(_pages) > 0 ? 1 : -1];                                       \
		int (*ringbuf_output)(void *, u64, u64);                                 \
	};                                                                               \
	extern struct _name##_table _name

enum {
	BPF_ANY,
	BPF_NOEXIST,
	BPF_EXIST,
};

u64 bpf_get_current_cgroup_id(void);
u64 bpf_get_current_pid_tgid(void);
u64 bpf_get_current_task(void);
u64 bpf_get_current_uid_gid(void);
u32 bpf_get_prandom_u32(void);
u32 bpf_get_smp_processor_id(void);
u64 bpf_ktime_get_ns(void);
int bpf_probe_read_kernel(void *to, u32 size, const void *from);
int bpf_probe_read_kernel_str(void *to, u32 size, const void *from);
int bpf_probe_read_user(void *to, u32 size, const void *from);
int bpf_probe_read_user_str(void *to, u32 size, const void *from);
