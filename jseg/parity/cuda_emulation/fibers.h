// Fibers: stacks between which one thread of the CPU changes, and what the sanitizers have to know
// of that. Included by scheduler.cc alone.
#pragma once
#include <sys/mman.h>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#if !defined(__x86_64__) || defined(EMULATION_UCONTEXT)
#define EMULATION_PORTABLE 1
#include <ucontext.h>
#endif

// There when the program is linked with a sanitizer, else null.
#define SANITIZER extern "C" __attribute__((weak))
SANITIZER void* __tsan_get_current_fiber();
SANITIZER void* __tsan_create_fiber(unsigned);
SANITIZER void __tsan_switch_to_fiber(void*, unsigned);
SANITIZER void __tsan_acquire(void*);
SANITIZER void __tsan_release(void*);
SANITIZER void AnnotateIgnoreReadsBegin(const char*, int);
SANITIZER void AnnotateIgnoreReadsEnd(const char*, int);
SANITIZER void AnnotateIgnoreWritesBegin(const char*, int);
SANITIZER void AnnotateIgnoreWritesEnd(const char*, int);
SANITIZER void __sanitizer_start_switch_fiber(void**, const void*, size_t);
SANITIZER void __sanitizer_finish_switch_fiber(void*, const void**, size_t*);
#undef SANITIZER

namespace emulation {
namespace {
inline bool detects_races() { return __tsan_create_fiber; }
inline size_t page() { return 4096; }
inline size_t stack_size() {
    return detects_races() || __sanitizer_start_switch_fiber ? 256 << 10 : 64 << 10;
}

// While this lives, the race detector sees no access, and takes memory that is made for new.
struct Unseen {
    Unseen() {
        if (!detects_races()) return;
        AnnotateIgnoreReadsBegin("", 0);
        AnnotateIgnoreWritesBegin("", 0);
    }
    ~Unseen() {
        if (!detects_races()) return;
        AnnotateIgnoreWritesEnd("", 0);
        AnnotateIgnoreReadsEnd("", 0);
    }
};

struct Fiber {
#ifdef EMULATION_PORTABLE
    ucontext_t context;
#else
    void* top;           // of its stack, while another fiber runs
#endif
    char* stack;         // null: the thread's own
    void* race_detector; // its name for this fiber
};

#ifndef EMULATION_PORTABLE
// Keeps the registers that a called function must keep, and returns on the other stack.
extern "C" void emulation_change_stack(void** from, void* to);
asm(R"(
    .text
    .local emulation_change_stack
    .type emulation_change_stack, @function
emulation_change_stack:
    push %rbp
    push %rbx
    push %r12
    push %r13
    push %r14
    push %r15
    mov %rsp, (%rdi)
    mov %rsi, %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbx
    pop %rbp
    ret
    .size emulation_change_stack, . - emulation_change_stack
)");
#endif

// ends: `from` has nothing left to do.
inline void change(Fiber& from, Fiber& to, bool ends = false) {
    if (detects_races()) __tsan_switch_to_fiber(to.race_detector, 1);  // 1: orders nothing
    void* fake_stack = nullptr;
    if (__sanitizer_start_switch_fiber)
        __sanitizer_start_switch_fiber(ends ? nullptr : &fake_stack, to.stack,
                                       to.stack ? stack_size() : 0);
#ifdef EMULATION_PORTABLE
    swapcontext(&from.context, &to.context);
#else
    emulation_change_stack(&from.top, to.top);
#endif
    if (__sanitizer_finish_switch_fiber)
        __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
}

// The fiber will begin with main(), which never returns.
inline void prepare(Fiber& fiber, void (*main)()) {
#ifdef EMULATION_PORTABLE
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack;
    fiber.context.uc_stack.ss_size = stack_size();
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, main, 0);
#else
    void** top = (void**)(fiber.stack + stack_size());
    *--top = nullptr;      // main's return address
    *--top = (void*)main;  // where the first change to this fiber returns to
    top -= 6;
    std::memset(top, 0, 6 * sizeof *top);
    fiber.top = top;
#endif
}

inline Fiber* new_fiber() {
    // The page below the stack is not readable: a stack that is too small ends the process.
    size_t size = stack_size() + page();
    Unseen unseen;
    void* memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED || mprotect(memory, page(), PROT_NONE)) std::abort();
    Fiber* fiber = new Fiber{};
    fiber->stack = (char*)memory + page();
    if (detects_races()) fiber->race_detector = __tsan_create_fiber(0);
    return fiber;
}
}
}
