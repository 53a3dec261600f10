/* A thread's stack that can be left and taken up again: how threads of a block wait for each other.
 */
#ifndef FIBER_H
#define FIBER_H

#include <stddef.h>

struct fiber {
    void *place;       /* where it was left: its stack pointer, or its context */
    const void *stack; /* lowest address; NULL for the one that the host's thread brought */
    size_t stack_bytes;
    void *sanitizer; /* what AddressSanitizer keeps of a stack that was left */
    fiber *next;     /* in a list of whoever owns it */
};

/* A fiber that will call `run` when it is first switched to; `run` never returns. Ends the program
 * if there is no memory for it. */
fiber *fiber_create(void (*run)());

/* Leaves `from`, on which this runs, and takes up `to`; returns when someone switches back. */
void fiber_switch(fiber *from, fiber *to);

#endif
