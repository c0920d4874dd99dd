/* SPDX-License-Identifier: Apache-2.0 */
/* thread_exec FILE ARGS...: executes FILE from a thread that is not the first one. */
#include "work.h"

#include <pthread.h>

static void *run(void *args)
{
	char **argv = args;

	execv(argv[0], argv);
	perror("execv");
	exit(1);
}

int main(int argc, char **argv)
{
	pthread_t id;

	ready();
	if (argc < 2 || pthread_create(&id, NULL, run, argv + 1))
		return 1;
	for (;;)
		pause();
}
