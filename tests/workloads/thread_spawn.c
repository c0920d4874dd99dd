/* SPDX-License-Identifier: Apache-2.0 */
/* thread_spawn FILE: runs FILE to its end from the first thread, then from one with a name. */
#include "work.h"

#include <pthread.h>
#include <sys/prctl.h>
#include <sys/wait.h>

static void run(char *file)
{
	pid_t child = fork();

	if (!child) {
		execl(file, file, (char *)0);
		_exit(127);
	}
	must(child > 0 && waitpid(child, NULL, 0) == child, "waitpid");
}

static void *named(void *file)
{
	prctl(PR_SET_NAME, "a-thread");
	run(file);
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t id;

	ready();
	must(argc == 2, "one argument");
	run(argv[1]);
	must(!pthread_create(&id, NULL, named, argv[1]), "pthread_create");
	must(!pthread_join(id, NULL), "pthread_join");
	return done("");
}
