// cuRAND on the host: other numbers than cuRAND's, of the same distributions.
#include <curand.h>
#include <random>

struct curandGenerator_st { std::mt19937_64 bits; };

namespace {
template <class T> curandStatus_t uniform(curandGenerator_t generator, T* values, size_t count) {
    std::uniform_real_distribution<T> below_1;
    for (size_t i = 0; i < count; i++) values[i] = 1 - below_1(generator->bits);  // (0, 1]
    return CURAND_STATUS_SUCCESS;
}

template <class T>
curandStatus_t normal(curandGenerator_t generator, T* values, size_t count, T mean, T deviation) {
    if (count % 2) return CURAND_STATUS_LENGTH_NOT_MULTIPLE;
    std::normal_distribution<T> distribution(mean, deviation);
    for (size_t i = 0; i < count; i++) values[i] = distribution(generator->bits);
    return CURAND_STATUS_SUCCESS;
}
}

extern "C" {
curandStatus_t curandCreateGenerator(curandGenerator_t* generator, curandRngType_t) {
    *generator = new curandGenerator_st();
    return CURAND_STATUS_SUCCESS;
}

curandStatus_t curandDestroyGenerator(curandGenerator_t generator) {
    delete generator;
    return CURAND_STATUS_SUCCESS;
}

curandStatus_t curandSetPseudoRandomGeneratorSeed(curandGenerator_t generator,
                                                  unsigned long long seed) {
    generator->bits.seed(seed);
    return CURAND_STATUS_SUCCESS;
}

curandStatus_t curandGenerateUniform(curandGenerator_t g, float* values, size_t count) {
    return uniform(g, values, count);
}

curandStatus_t curandGenerateUniformDouble(curandGenerator_t g, double* values, size_t count) {
    return uniform(g, values, count);
}

curandStatus_t curandGenerateNormal(curandGenerator_t g, float* values, size_t count, float mean,
                                    float deviation) {
    return normal(g, values, count, mean, deviation);
}

curandStatus_t curandGenerateNormalDouble(curandGenerator_t g, double* values, size_t count,
                                          double mean, double deviation) {
    return normal(g, values, count, mean, deviation);
}
}
