/* SPDX-License-Identifier: Apache-2.0 */
/* The program that spawn runs: it ends at once. Linked statically, so that this is all. */
int main(void)
{
	return 0;
}
