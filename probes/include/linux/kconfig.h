/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * BCC includes this before everything. The kernel's version comes from uname by -D
 * (PROBETOP_KERNEL_VERSION), for a header cannot ask the running kernel.
 */
#pragma once

#define CONFIG_BPF_SYSCALL 1
#define CONFIG_64BIT 1
#define CONFIG_ARCH_HAS_SYSCALL_WRAPPER 1
#if defined(__x86_64__) || defined(__TARGET_ARCH_x86)
#define CONFIG_X86 1
#define CONFIG_X86_64 1
#else
#define CONFIG_ARM64 1
#endif

#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + ((c) > 255 ? 255 : (c)))
#ifdef PROBETOP_KERNEL_VERSION
#define LINUX_VERSION_CODE PROBETOP_KERNEL_VERSION
#else
#define LINUX_VERSION_CODE KERNEL_VERSION(5, 10, 0)
#endif
