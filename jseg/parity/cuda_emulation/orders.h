// The order in which threads of a block go on between two barriers, and in which blocks follow each
// other: forward, reverse, or random:SEED. Included by scheduler.cc alone.
#pragma once
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

namespace emulation {
namespace {
std::string order_name;
uint64_t random_state = 1;

bool ordered(const char* name) { return order_name.compare(0, std::strlen(name), name) == 0; }

void choose_order(const char* name) {
    order_name = name;
    uint64_t seed = ordered("random:") ? std::atoll(name + 7) : 0;
    random_state = 2 * seed + 0x9e3779b97f4a7c15ull;
}

uint64_t draw() {  // xorshift64
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

void shuffle(std::vector<unsigned>& list) {
    if (!ordered("random")) return;
    for (size_t i = list.size(); i > 1; i--) std::swap(list[i - 1], list[draw() % i]);
}

std::vector<unsigned> arranged(size_t n) {
    std::vector<unsigned> list(n);
    for (size_t i = 0; i < n; i++) list[i] = ordered("reverse") ? n - 1 - i : i;
    return list;
}
}
}
