// The main program of a kernel's test: reads calls from a file, computes them in the given order of
// threads, and writes their outputs to another. programs.py reads and writes the other ends.
//
// Inputs and outputs are copies in memory of their exact size; outputs begin as NaN. Without the
// address sanitizer, memory around each shows what is written beside it.
#pragma once
#include <cstdio>
#include <vector>
#include "common.h"
#include "scheduler.h"
#if defined(EMULATION_FAST_MATH) && defined(__SSE__)
#include <xmmintrin.h>
#endif

typedef std::map<std::string, double> Data;
typedef void (*Body)(char** arrays, const long (*shapes)[4], Data& data);
extern const Body BODIES[];

namespace caller {
#ifdef __SANITIZE_ADDRESS__
const long BESIDE = 0;
#else
const long BESIDE = 1024;  // bytes before and behind each array
#endif

struct Array {
    long bytes, shape[4];
    bool input;
    char *memory, *values;
    std::vector<char> before;  // an input's values

    // Beside inputs and outputs are two kinds of NaN, so that one copied to the other is seen.
    uint16_t beside() const { return input ? 0xffff : 0x7fff; }
    uint16_t* words(bool behind) const { return (uint16_t*)(behind ? values + bytes : memory); }

    void take(FILE* file) {
        memory = (char*)std::malloc(bytes + 2 * BESIDE);
        values = memory + BESIDE;
        for (bool behind : {false, true}) std::fill_n(words(behind), BESIDE / 2, beside());
        std::memset(values, 0xff, bytes);
        if (!input) return;
        if (bytes && std::fread(values, bytes, 1, file) != 1) std::exit(4);
        before.assign(values, values + bytes);
    }

    void check(long number) const {
        const char* kind = input ? "input" : "output";
        bool written = false;
        for (bool behind : {false, true})
            for (long i = 0; i < BESIDE / 2; i++) written |= words(behind)[i] != beside();
        if (written)
            std::fprintf(stderr, "emulation: memory beside %s %ld is written to\n", kind, number);
        if (before.size() && std::memcmp(before.data(), values, before.size()))
            std::fprintf(stderr, "emulation: %s %ld is written to\n", kind, number);
    }
};

inline bool call(FILE* calls, FILE* results) {
    long counts[4];  // the body's number, inputs, outputs, data
    if (std::fread(counts, sizeof counts, 1, calls) != 1) return false;
    long inputs = counts[1], all = inputs + counts[2];
    std::vector<Array> arrays(all);
    for (Array& array : arrays)
        if (std::fread(&array.bytes, 5 * sizeof(long), 1, calls) != 1) std::exit(4);
    Data data;
    for (long i = 0; i < counts[3]; i++) {
        struct { char name[24]; double value; } entry;
        if (std::fread(&entry, sizeof entry, 1, calls) != 1) std::exit(4);
        data[entry.name] = entry.value;
    }

    std::vector<char*> places(all);
    std::vector<long> shapes(4 * all);
    for (long i = 0; i < all; i++) {
        arrays[i].input = i < inputs;
        arrays[i].take(calls);
        places[i] = arrays[i].values;
        std::memcpy(&shapes[4 * i], arrays[i].shape, sizeof arrays[i].shape);
    }
    BODIES[counts[0]](places.data(), (const long (*)[4])shapes.data(), data);

    for (long i = 0; i < all; i++) {
        arrays[i].check(i < inputs ? i : i - inputs);
        if (i >= inputs && arrays[i].bytes) std::fwrite(places[i], arrays[i].bytes, 1, results);
        std::free(arrays[i].memory);
    }
    return true;
}
}

int main(int, char** arguments) {  // order, file of calls, file for the results
#if defined(EMULATION_FAST_MATH) && defined(__SSE__)
    _mm_setcsr(_mm_getcsr() | 0x8040);  // denormal numbers are 0
#endif
    emulation_set_order(arguments[1]);
    FILE *calls = std::fopen(arguments[2], "rb"), *results = std::fopen(arguments[3], "wb");
    if (!calls || !results) return 4;
    while (caller::call(calls, results)) {}
    return std::fclose(results) ? 4 : 0;
}
