#include "fiber.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#ifdef FIBER_SANITIZE /* the program has AddressSanitizer, this file has not: it must be told of   \
                         stacks */
#include <sanitizer/common_interface_defs.h>
#endif

#if defined(__x86_64__) && !defined(FIBER_UCONTEXT)
#define FIBER_ASSEMBLY 1
#endif

enum { STACK_BYTES = 256 * 1024 };

/* Who is being left, so that the one taken up can tell AddressSanitizer about it. */
static fiber *left;

static void *stack_create()
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    char *memory = (char *)mmap(nullptr, STACK_BYTES + page, PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED || mprotect(memory, page, PROT_NONE) != 0) {
        perror("cuda_on_cpu: the stack of a thread");
        abort();
    }
    return memory + page; /* below it lies a page that nobody may touch */
}

/* The first thing on either side of a switch. */
static void arrive(fiber *self)
{
#ifdef FIBER_SANITIZE
    const void *stack = nullptr;
    size_t bytes = 0;
    __sanitizer_finish_switch_fiber(self->sanitizer, &stack, &bytes);
    left->stack = stack; /* of the host's thread it is not known before */
    left->stack_bytes = bytes;
#else
    (void)self;
#endif
}

static fiber *entering;              /* the one that begins */
static void (*entry_of)() = nullptr; /* the same for all: what fibers run */

static void begin()
{
    arrive(entering);
    entry_of();
    abort(); /* it never returns */
}

#ifdef FIBER_ASSEMBLY

/* on_cpu_swap(void **save, void *load): pushes the registers that a function must keep, saves the
 * stack pointer, loads the other one, and pops them. */
asm(R"(
    .text
    .p2align 4
    .type on_cpu_swap, @function
on_cpu_swap:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .size on_cpu_swap, . - on_cpu_swap
)");
extern "C" void on_cpu_swap(void **save, void *load) __asm__("on_cpu_swap");

static void place_first(fiber *self)
{
    void **top = (void **)((char *)self->stack + self->stack_bytes);
    *--top = nullptr;       /* where a return from begin would lead */
    *--top = (void *)begin; /* where the first switch returns to */
    for (int i = 0; i < 6; i++) {
        *--top = nullptr; /* registers */
    }
    self->place = top;
}

static void swap(fiber *from, fiber *to)
{
    on_cpu_swap(&from->place, to->place);
}

#else

static void place_first(fiber *self)
{
    ucontext_t *context = (ucontext_t *)calloc(1, sizeof(*context));
    if (context == nullptr || getcontext(context) != 0) {
        perror("cuda_on_cpu: the context of a thread");
        abort();
    }
    context->uc_stack.ss_sp = (void *)self->stack;
    context->uc_stack.ss_size = self->stack_bytes;
    makecontext(context, begin, 0);
    self->place = context;
}

static void swap(fiber *from, fiber *to)
{
    ucontext_t own;
    if (from->place == nullptr) {
        from->place = &own; /* of the host's thread: on its own stack, as long as it is left */
    }
    swapcontext((ucontext_t *)from->place, (ucontext_t *)to->place);
    if (from->place == &own) {
        from->place = nullptr;
    }
}

#endif

fiber *fiber_create(void (*run)())
{
    fiber *self = (fiber *)calloc(1, sizeof(*self));
    if (self == nullptr) {
        perror("cuda_on_cpu: a thread");
        abort();
    }
    self->stack = stack_create();
    self->stack_bytes = STACK_BYTES;
    entry_of = run;
    place_first(self);
    return self;
}

void fiber_switch(fiber *from, fiber *to)
{
    left = from;
    entering = to;
#ifdef FIBER_SANITIZE
    __sanitizer_start_switch_fiber(&from->sanitizer, to->stack, to->stack_bytes);
#endif
    swap(from, to);
    arrive(from);
}
