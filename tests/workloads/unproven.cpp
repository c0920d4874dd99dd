/* SPDX-License-Identifier: Apache-2.0 */
/* unproven N: calls of `anywhere`, which ends in a jump out of a table of functions, of `anyone`, and
 * of a member of a class. */
#include "work.h"

#include <stdexcept>

#define TRACED extern "C" __attribute__((noinline, noclone))

TRACED long one(long i) { return i + 1; }
TRACED long two(long i) { return i * 2; }

static long (*volatile choices[])(long) = {one, two};

TRACED long anywhere(long i)
{
	return choices[i & 1](i);
}

TRACED long anyone(long i)
{
	asm volatile("");
	return i + 3;
}

namespace shop {
struct Cart {
	__attribute__((noinline, noclone)) long add(long i)
	{
		asm volatile("");
		return i + 4;
	}
};
}

int main(int argc, char **argv)
{
	long n = argc > 1 ? atol(argv[1]) : 0, returned = 0;
	char said[32];

	must(n > 0, "unproven N");
	ready();
	for (long i = 0; i < n; i++) {
		try {
			anywhere(i);
			anyone(i);
			shop::Cart().add(i);
			returned++;
		} catch (const std::exception &) {
		}
	}
	snprintf(said, sizeof(said), "%ld", returned);
	return done(said);
}
