/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* BCC's helpers use PAGE_SIZE for perf buffers only, which none of our programs has. */
#pragma once

#define PAGE_SIZE 4096
