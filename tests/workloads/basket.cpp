// SPDX-License-Identifier: Apache-2.0
// basket N: N calls of a member of a template, 2 N of the same one for another type.
#include "work.h"

#include <cstdlib>

namespace shop {
template <class T> struct Basket {
	T sum = 0;

	__attribute__((noinline, noclone)) void add(T price)
	{
		sum = sum + price;
		asm volatile("" ::: "memory");
	}
};
} // namespace shop

int main(int argc, char **argv)
{
	shop::Basket<int> some;
	shop::Basket<double> others;
	long n = argc == 2 ? atol(argv[1]) : 0;

	ready();
	for (long i = 0; i < n; i++) {
		some.add((int)i);
		others.add(i * .5);
		others.add(i * .25);
	}
	return done("");
}
