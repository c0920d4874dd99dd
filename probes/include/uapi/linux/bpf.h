/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Included by BCC, which brings the contents that we need itself. */
#pragma once
