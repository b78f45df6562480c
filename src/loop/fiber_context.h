/* The switch from one stack to another. Assembly for x86_64 and aarch64,
ucontext for other machines (or with MARTLET_FIBER_UCONTEXT). */
#pragma once

#include <stddef.h>

#if !defined(MARTLET_FIBER_UCONTEXT) && !defined(__x86_64__) && !defined(__aarch64__)
#define MARTLET_FIBER_UCONTEXT 1
#endif

#ifdef MARTLET_FIBER_UCONTEXT
#include <ucontext.h>
#endif

struct fiber_context {
  void *sp; /* nothing below it is in use while the context is switched out */
#ifdef MARTLET_FIBER_UCONTEXT
  ucontext_t uc;
#endif
};

/* Prepares a context that starts entry() on the given stack; entry must not return. */
void fiber_context_make(struct fiber_context *c, void *stack, size_t size, void (*entry)(void));
/* Saves the present context in *from and continues *to. */
void fiber_context_switch(struct fiber_context *from, struct fiber_context *to);
