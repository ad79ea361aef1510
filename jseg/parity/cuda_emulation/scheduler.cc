// The emulated device: blocks one after another, a block's threads as fibers that change places at
// barriers and where lanes of a warp meet, and nowhere else.
//
// The order of threads between two barriers, and of blocks, is forward, reverse or random: results
// that depend on it are races. Shared memory begins as NaN. Barriers for which threads wait at
// different places, and lanes that others wait for in vain, are reported. With the thread
// sanitizer each thread of a block is a thread of its own to it, ordered by barriers alone.
//
// EMULATION_ORDER: the order, unless emulation_set_order is called. EMULATION_TRACE: launches are
// printed. EMULATION_STRICT: the first report aborts. No sanitizer may instrument this file.
#include "scheduler.h"
#include "fibers.h"
#include "orders.h"
#include <algorithm>
#include <cstdio>
#include <deque>
#include <set>
#include <string>
#include <vector>

namespace emulation {
Index thread, block, threads, blocks;

namespace {
const size_t SHARED_BYTES = 48 << 10;                    // of a block
const int INVALID_VALUE = 1, INVALID_CONFIGURATION = 9;  // cudaError_t

enum State { READY, AT_BARRIER, AT_MEETING, ENDED };
struct Thread {
    Index index;
    State state;
    Fiber* fiber;  // null before it begins
    const char* file; int line;  // where it waits
    unsigned mask, meetings, barriers;
    alignas(16) unsigned char brought[2][16];  // to the last two meetings
};
struct Place { void* memory; size_t size; };

// the device
uint64_t launches, reports;
std::set<std::string> reported;  // each place once
bool trace, strict;
int error;

// the launch and its block
const char* kernel = "";
void (*entry)(void*);
void* body;
std::vector<Thread> all;
std::vector<unsigned> order;
size_t next_thread, running;
std::vector<Place> places;
char* dynamic;
size_t shared_bytes;
uint64_t block_number;  // in their order

// fibers: the host's own, those without a thread, and the one that has just ended
Fiber host{};
std::deque<Fiber*> idle;
Fiber* ended_fiber;

// What the race detector orders by. A place belongs to a block, so that one block's barriers do
// not order another's threads.
const unsigned PLACES = 4096;
char launch_begins, launch_ends, at_barrier[PLACES][2], at_meeting[PLACES];
unsigned block_place;
void acquire(char& place) { if (detects_races()) __tsan_acquire(&place); }
void release(char& place) { if (detects_races()) __tsan_release(&place); }

void read_environment() {
    static bool read = false;
    if (read) return;
    read = true;
    const char* name = std::getenv("EMULATION_ORDER");
    if (name && order_name.empty()) choose_order(name);
    trace = std::getenv("EMULATION_TRACE");
    strict = std::getenv("EMULATION_STRICT");
}

Index index_of(uint64_t i, const Index& size) {
    return {unsigned(i % size.x), unsigned(i / size.x % size.y), unsigned(i / size.x / size.y)};
}

void become(size_t i) {
    running = i;
    thread = all[i].index;
}

// A fiber's life: its thread, then others that have not begun. To the race detector a fiber is one
// thread, so there it ends with the first.
void fiber_main() {
    if (__sanitizer_finish_switch_fiber) __sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr);
    for (;;) {
        Fiber* own = all[running].fiber;
        acquire(launch_begins);
        entry(body);
        all[running].state = ENDED;
        release(launch_ends);
        if (!detects_races() && next_thread < order.size()) {
            unsigned i = order[next_thread++];
            all[i].fiber = own;
            become(i);
        } else {
            ended_fiber = own;
            change(*own, host, true);
        }
    }
}

Fiber* next_idle() {
    if (idle.empty()) idle.push_back(new_fiber());
    // To the race detector all work of a fiber is in order, so the first blocks of a launch share
    // none with the block before. Later ones take what was used last, which is faster.
    bool oldest = detects_races() && block_number < 8;
    Fiber* fiber = oldest ? idle.front() : idle.back();
    if (oldest) idle.pop_front();
    else idle.pop_back();
    return fiber;
}

void go_on(unsigned i) {
    if (!all[i].fiber) {
        all[i].fiber = next_idle();
        prepare(*all[i].fiber, fiber_main);
    }
    become(i);
    change(host, *all[i].fiber);
    if (ended_fiber) idle.push_back(ended_fiber);
    ended_fiber = nullptr;
}

void wait(State state) {
    all[running].state = state;
    change(*all[running].fiber, host);
}

// All threads that have not ended wait: for a barrier, which opens, or for lanes in vain. False
// when all have ended.
bool release_waiting() {
    size_t ended = 0, waiting = 0;
    const Thread* first = nullptr;
    for (Thread& t : all) {
        ended += t.state == ENDED;
        if (t.state != AT_BARRIER) continue;
        if (!first) first = &t;
        waiting++;
        if (first->line != t.line || std::strcmp(first->file, t.file))
            report("threads of a block wait at different barriers", t.file, t.line);
    }
    if (ended == all.size()) return false;

    bool in_vain = waiting + ended < all.size();
    if (ended && !in_vain)
        report("threads have ended while others wait at a barrier", first->file, first->line);
    for (Thread& t : all) {
        if (t.state != (in_vain ? AT_MEETING : AT_BARRIER)) continue;
        if (in_vain) report("lanes of a warp wait for lanes that are elsewhere", t.file, t.line);
        t.state = READY;
    }
    return true;
}

void run_block() {
    while (detects_races() && idle.size() < 2 * all.size()) idle.push_back(new_fiber());
    shuffle(order);
    for (next_thread = 0; next_thread < order.size();) go_on(order[next_thread++]);
    for (bool going = true; going;) {
        bool ran = false;
        for (unsigned i : order)
            if (all[i].state == READY) {
                go_on(i);
                ran = true;
            }
        if (ran) continue;
        going = release_waiting();
        shuffle(order);
    }
}

void* poisoned(size_t size) {
    Unseen unseen;
    return std::memset(std::malloc(size), 0xff, size);
}

void forget_shared() {
    Unseen unseen;
    for (Place& place : places) {
        std::free(place.memory);
        place.memory = nullptr;
    }
    std::free(dynamic);
    dynamic = nullptr;
}

bool refused(const Launch& launch) {
    const Index &grid = launch.grid, &size = launch.block;
    uint64_t count = (uint64_t)size.x * size.y * size.z;
    const char* why = nullptr;
    if (!count || count > 1024 || size.z > 64) why = "a block of that size is refused";
    if (!grid.x || !grid.y || !grid.z || grid.x > 2147483647u || grid.y > 65535 || grid.z > 65535)
        why = "a grid of that size is refused";
    int code = INVALID_CONFIGURATION;
    if (!why && launch.dynamic > SHARED_BYTES) {
        why = "more than 48 KB of dynamic shared memory are refused";
        code = INVALID_VALUE;
    }
    if (why) error = code, report(why, "", 0);
    return why;
}
}

void run(const Launch& launch, const char* name, void (*function)(void*), void* arguments) {
    read_environment();
    kernel = name;
    entry = function;
    body = arguments;
    threads = launch.block;
    blocks = launch.grid;
    block = thread = Index{};
    launches++;
    if (trace)
        std::fprintf(stderr, "emulation: %s <<<(%u, %u, %u), (%u, %u, %u), %zu>>>\n", name,
                     blocks.x, blocks.y, blocks.z, threads.x, threads.y, threads.z, launch.dynamic);
    if (refused(launch)) return;

    if (detects_races()) host.race_detector = __tsan_get_current_fiber();
    release(launch_begins);
    size_t count = (size_t)threads.x * threads.y * threads.z;
    order = arranged(count);
    uint64_t total = (uint64_t)blocks.x * blocks.y * blocks.z;
    std::vector<unsigned> block_order;  // empty: too many for an order of their own
    if (total < 1u << 22) {
        block_order = arranged(total);
        shuffle(block_order);
    }

    for (block_number = 0; block_number < total; block_number++) {
        block = index_of(block_order.empty() ? block_number : block_order[block_number], blocks);
        block_place = (block_place + 1) % PLACES;
        shared_bytes = launch.dynamic;
        if (launch.dynamic) dynamic = (char*)poisoned(launch.dynamic);
        all.assign(count, Thread{});
        for (size_t i = 0; i < count; i++) all[i].index = index_of(i, threads);
        run_block();
        forget_shared();
    }
    acquire(launch_ends);
}

int last_error(bool clear) {
    int code = error;
    if (clear) error = 0;
    return code;
}

void report(const char* what, const char* file, int line) {
    Unseen unseen;
    reports++;
    std::string place = *file ? std::string(" at ") + file + ":" + std::to_string(line) : "";
    if (reported.insert(std::string(kernel) + what + place).second)
        std::fprintf(stderr,
                     "emulation: %s: %s; grid %u, %u, %u of %u, %u, %u, block %u, %u, %u, "
                     "thread %u, %u, %u%s\n",
                     kernel, what, blocks.x, blocks.y, blocks.z, threads.x, threads.y, threads.z,
                     block.x, block.y, block.z, thread.x, thread.y, thread.z, place.c_str());
    if (strict) std::abort();
}

void barrier(const char* file, int line) {
    Thread& t = all[running];
    t.file = file;
    t.line = line;
    char& place = at_barrier[block_place][t.barriers++ % 2];
    release(place);
    wait(AT_BARRIER);
    acquire(place);
}

unsigned lane() { return running % 32; }

// A shuffle's values go through places that a later block's lanes use, too; the race detector,
// which hears of every memcpy, must not take that for a race.
void bring(void* to, const void* from, size_t size) {
    Unseen unseen;
    std::memcpy(to, from, size);
}

unsigned meet(unsigned mask, const void* value, size_t size, const char* file, int line) {
    Thread& own = all[running];
    unsigned meeting = own.meetings++;
    own.mask = mask;
    own.file = file;
    own.line = line;
    if (value) bring(own.brought[meeting % 2], value, size);
    if (!(mask >> lane() & 1)) report("a lane meets others without being in the mask", file, line);
    release(at_meeting[block_place]);

    // The last to come wakes the others and goes on itself.
    own.state = AT_MEETING;
    size_t first = running - lane(), last = std::min(first + 32, all.size());
    bool complete = true;
    for (size_t i = first; i < last; i++) {
        const Thread& t = all[i];
        if (mask >> (i - first) & 1 && t.state != ENDED)
            complete &= t.state == AT_MEETING && t.mask == mask && t.line == line;
    }
    if (!complete) wait(AT_MEETING);
    else for (size_t i = first; i < last; i++)
        if (all[i].state == AT_MEETING && all[i].mask == mask) all[i].state = READY;
    acquire(at_meeting[block_place]);
    return meeting;
}

bool value_of(unsigned lane_number, unsigned meeting, void* value, size_t size) {
    size_t i = running - lane() + lane_number;
    if (i >= all.size() || all[i].meetings <= meeting) return false;
    bring(value, all[i].brought[meeting % 2], size);
    return true;
}

void* place_of(int& number, size_t size) {
    if (!number) {
        places.push_back({nullptr, size});
        number = places.size();
    }
    Place& place = places[number - 1];
    if (!place.memory) {
        place.memory = poisoned(size);
        shared_bytes += size;
        if (shared_bytes > SHARED_BYTES) report("more than 48 KB of shared memory", "", 0);
    }
    return place.memory;
}

void* dynamic_shared() { return dynamic; }
}

extern "C" {
void emulation_set_order(const char* order) { emulation::choose_order(order); }
unsigned long emulation_launches() { return emulation::launches; }
unsigned long emulation_reports() { return emulation::reports; }
}
