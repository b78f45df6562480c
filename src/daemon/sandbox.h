/* What a worker may no longer ask of the kernel once it has begun: a list of system calls and of kinds of sockets that no
part of it needs, and through which a taken-over worker could attack the kernel, other processes or the machine's settings.
Programs that it starts (${run}, queryprogram) are held to the same; local deliveries are the agent's, and are not. */
#pragma once

/* Sets "no new privileges" and the filter, for this thread and all that it starts. 0; -errno where the kernel or a container
does not allow it: the process goes on without. */
int sandbox_enter(void);
/* For a process that only talks over sockets that it has or makes: nor may it start programs or processes, signal any, or (where
the kernel has Landlock) open any file. */
int sandbox_enter_alone(void);
/* For a process that only reads files and answers over sockets that it has: as above, but files may be read, and no sockets are made. */
int sandbox_enter_reader(void);
/* Before it, for one that was started by root: becomes nobody, who may read any file; one that an ordinary user
has started becomes that user. Ends the process where that fails. */
void sandbox_drop_root_but_reading(void);
/* For a process that needs no root, however it was started: the effective user for good, or the caller, or nobody. */
void sandbox_drop_root(void);
