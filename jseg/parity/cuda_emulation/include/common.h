// Stands in for Jittor's header of that name, which includes all of Jittor: what source of jt.code
// expects to be there.
#pragma once
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <map>
#include <string>

namespace jittor {
typedef int8_t int8;
typedef int32_t int32;
typedef int64_t int64;
typedef uint16_t uint16;
typedef float float32;
typedef double float64;
}

// CHECK(condition) << "why": Jittor raises a RuntimeError; here the program ends with exit code 3.
struct Check {
    bool failed;
    ~Check() {
        if (!failed) return;
        std::cerr << std::endl;
        std::_Exit(3);
    }
    template <class T> Check& operator<<(const T& value) {
        if (failed) std::cerr << value << ' ';
        return *this;
    }
};
#define CHECK(condition) Check{!(condition)} << (condition ? "" : "check failed: " #condition)
#define ASSERT CHECK
#define LOGf Check{true}
