/* SPDX-License-Identifier: Apache-2.0 */
/* memfd fexecve|execveat: executes a copy of /bin/true that is in memory only. */
#include "work.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/syscall.h>

extern char **environ;

int main(int argc, char **argv)
{
	char *arguments[] = {"another name", "an argument", NULL};
	int from = open("/bin/true", O_RDONLY), fd = memfd_create("in memory", 0);

	must(argc > 1 && from >= 0 && fd >= 0, "memfd fexecve|execveat");
	while (sendfile(fd, from, NULL, 1 << 20) > 0)
		;
	if (!strcmp(argv[1], "fexecve"))
		fexecve(fd, arguments, environ);
	else
		syscall(SYS_execveat, fd, "", arguments, environ, AT_EMPTY_PATH);
	return 9;
}
