/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* BCC's helpers include it for one function. */
#pragma once

#define roundup_pow_of_two(n) ((n) <= 1 ? 1UL : 1UL << (64 - __builtin_clzl((n) - 1)))
