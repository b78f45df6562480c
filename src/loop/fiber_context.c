#include "loop/fiber_context.h"

#include <stdint.h>
#include <string.h>

#ifdef MARTLET_FIBER_UCONTEXT

void fiber_context_make(struct fiber_context *c, void *stack, size_t size, void (*entry)(void)) {
  getcontext(&c->uc);
  c->uc.uc_stack.ss_sp = stack;
  c->uc.uc_stack.ss_size = size;
  c->uc.uc_link = NULL;
  makecontext(&c->uc, entry, 0);
  c->sp = (char *)stack + size;
}

void fiber_context_switch(struct fiber_context *from, struct fiber_context *to) {
  /* swapcontext's own frame is small; a page of margin covers it. */
  from->sp = (char *)__builtin_frame_address(0) - 4096;
  swapcontext(&from->uc, &to->uc);
}

#else

/* Pushes the registers that a called function must preserve, stores the stack
pointer in *save, takes the other stack and pops the same from there. */
void fiber_context_swap(void **save, void *to);

#if defined(__x86_64__)

__asm__(".text\n"
        ".globl fiber_context_swap\n"
        ".hidden fiber_context_swap\n"
        ".type fiber_context_swap, @function\n"
        ".p2align 4\n"
        "fiber_context_swap:\n"
        "  endbr64\n"
        "  pushq %rbp\n"
        "  pushq %rbx\n"
        "  pushq %r12\n"
        "  pushq %r13\n"
        "  pushq %r14\n"
        "  pushq %r15\n"
        "  subq $8, %rsp\n"
        "  stmxcsr (%rsp)\n"
        "  fnstcw 4(%rsp)\n"
        "  movq %rsp, (%rdi)\n"
        "  movq %rsi, %rsp\n"
        "  ldmxcsr (%rsp)\n"
        "  fldcw 4(%rsp)\n"
        "  addq $8, %rsp\n"
        "  popq %r15\n"
        "  popq %r14\n"
        "  popq %r13\n"
        "  popq %r12\n"
        "  popq %rbx\n"
        "  popq %rbp\n"
        "  ret\n"
        ".size fiber_context_swap, .-fiber_context_swap\n");

void fiber_context_make(struct fiber_context *c, void *stack, size_t size, void (*entry)(void)) {
  uint64_t *sp = (uint64_t *)(((uintptr_t)stack + size) & ~(uintptr_t)15);
  uint32_t mxcsr;
  uint16_t fpu;
  __asm__ volatile("stmxcsr %0" : "=m"(mxcsr));
  __asm__ volatile("fnstcw %0" : "=m"(fpu));
  *--sp = 0; /* where entry would return to: ends backtraces */
  *--sp = (uint64_t)(uintptr_t)entry;
  for (int i = 0; i < 6; i++)
    *--sp = 0;
  *--sp = mxcsr | (uint64_t)fpu << 32;
  c->sp = sp;
}

#elif defined(__aarch64__)

__asm__(".text\n"
        ".globl fiber_context_swap\n"
        ".hidden fiber_context_swap\n"
        ".type fiber_context_swap, %function\n"
        ".p2align 4\n"
        "fiber_context_swap:\n"
        "  sub sp, sp, #160\n"
        "  stp d8, d9, [sp, #0]\n"
        "  stp d10, d11, [sp, #16]\n"
        "  stp d12, d13, [sp, #32]\n"
        "  stp d14, d15, [sp, #48]\n"
        "  stp x19, x20, [sp, #64]\n"
        "  stp x21, x22, [sp, #80]\n"
        "  stp x23, x24, [sp, #96]\n"
        "  stp x25, x26, [sp, #112]\n"
        "  stp x27, x28, [sp, #128]\n"
        "  stp x29, x30, [sp, #144]\n"
        "  mov x9, sp\n"
        "  str x9, [x0]\n"
        "  mov sp, x1\n"
        "  ldp d8, d9, [sp, #0]\n"
        "  ldp d10, d11, [sp, #16]\n"
        "  ldp d12, d13, [sp, #32]\n"
        "  ldp d14, d15, [sp, #48]\n"
        "  ldp x19, x20, [sp, #64]\n"
        "  ldp x21, x22, [sp, #80]\n"
        "  ldp x23, x24, [sp, #96]\n"
        "  ldp x25, x26, [sp, #112]\n"
        "  ldp x27, x28, [sp, #128]\n"
        "  ldp x29, x30, [sp, #144]\n"
        "  add sp, sp, #160\n"
        "  ret\n"
        ".size fiber_context_swap, .-fiber_context_swap\n");

void fiber_context_make(struct fiber_context *c, void *stack, size_t size, void (*entry)(void)) {
  uint64_t *sp = (uint64_t *)(((uintptr_t)stack + size) & ~(uintptr_t)15) - 20;
  memset(sp, 0, 160);
  sp[19] = (uint64_t)(uintptr_t)entry; /* x30 */
  c->sp = sp;
}

#endif

void fiber_context_switch(struct fiber_context *from, struct fiber_context *to) {
  fiber_context_swap(&from->sp, to->sp);
}

#endif
