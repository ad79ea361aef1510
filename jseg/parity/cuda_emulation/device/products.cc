// cuBLAS on the host: products of matrices, sums in float32 (float64 for float64), results rounded
// to the type of the result. What cuBLAS would refuse is refused, with a line on standard error.
#include <cublas_v2.h>
#include <cstdio>
#include <cstdlib>
#include <vector>
#include "numbers.h"

namespace {
using namespace emulated;

Type type_of(cudaDataType type) {
    return type == CUDA_R_64F ? DOUBLE : type == CUDA_R_16F ? HALF
         : type == CUDA_R_16BF ? BFLOAT16 : FLOAT;
}

struct Matrix { Type type; void* data; long leading; bool transposed; };

// c = alpha a b + beta c with a [m, k], b [k, n]; columns lie one after another, as in BLAS.
template <class S>
void multiply(long m, long n, long k, S alpha, const Matrix& a, const Matrix& b, S beta,
              const Matrix& c) {
    auto at = [](const Matrix& x, long row, long column) -> S {
        return read(x.type, x.data,
                    x.transposed ? row * x.leading + column : column * x.leading + row);
    };
    std::vector<S> columns(m * k), sums(m);
    for (long l = 0; l < k; l++)
        for (long i = 0; i < m; i++) columns[l * m + i] = at(a, i, l);

    for (long j = 0; j < n; j++) {
        std::fill(sums.begin(), sums.end(), S(0));
        for (long l = 0; l < k; l++) {
            S factor = at(b, l, j);
            const S* column = &columns[l * m];
            for (long i = 0; i < m; i++) sums[i] += factor * column[i];
        }
        for (long i = 0; i < m; i++) {
            S before = beta == S(0) ? S(0) : beta * at(c, i, j);
            write(c.type, c.data, j * c.leading + i, alpha * sums[i] + before);
        }
    }
}

cublasStatus_t refuse(cublasStatus_t status, const char* why) {
    std::fprintf(stderr, "emulated cuBLAS: %s\n", why);
    return status;
}

cublasStatus_t product(long m, long n, long k, const void* alpha, const Matrix& a, const Matrix& b,
                       const void* beta, const Matrix& c, cublasComputeType_t sums) {
    if (m < 0 || n < 0 || k < 0 || a.leading < (a.transposed ? k : m)
        || b.leading < (b.transposed ? n : k) || c.leading < m)
        return refuse(CUBLAS_STATUS_INVALID_VALUE, "a leading dimension is too small");
    bool exact = sums == CUBLAS_COMPUTE_32F || sums == CUBLAS_COMPUTE_64F;
    if ((a.type == DOUBLE) != (sums == CUBLAS_COMPUTE_64F))
        return refuse(CUBLAS_STATUS_NOT_SUPPORTED, "float64 with sums in another type");
    if (sums == CUBLAS_COMPUTE_16F ? a.type != HALF : !exact && a.type != FLOAT)
        return refuse(CUBLAS_STATUS_NOT_SUPPORTED, "no such sums for matrices of this type");
    if (a.type != b.type) return refuse(CUBLAS_STATUS_NOT_SUPPORTED, "two types of matrices");

    if (sums == CUBLAS_COMPUTE_64F)
        multiply<double>(m, n, k, *(const double*)alpha, a, b, *(const double*)beta, c);
    else if (sums == CUBLAS_COMPUTE_16F)
        multiply<float>(m, n, k, read(HALF, alpha, 0), a, b, read(HALF, beta, 0), c);
    else
        multiply<float>(m, n, k, *(const float*)alpha, a, b, *(const float*)beta, c);
    return CUBLAS_STATUS_SUCCESS;
}
}

extern "C" {
cublasStatus_t cublasCreate(cublasHandle_t* handle) {
    *handle = (cublasHandle_t)std::calloc(1, 8);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasDestroy(cublasHandle_t handle) {
    std::free(handle);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSgemm(
        cublasHandle_t, cublasOperation_t of_a, cublasOperation_t of_b, int m, int n, int k,
        const float* alpha, const float* a, int lda, const float* b, int ldb, const float* beta,
        float* c, int ldc) {
    return product(m, n, k, alpha, {FLOAT, (void*)a, lda, of_a != CUBLAS_OP_N},
                   {FLOAT, (void*)b, ldb, of_b != CUBLAS_OP_N}, beta, {FLOAT, c, ldc, false},
                   CUBLAS_COMPUTE_32F);
}

cublasStatus_t cublasGemmEx(
        cublasHandle_t, cublasOperation_t of_a, cublasOperation_t of_b, int m, int n, int k,
        const void* alpha, const void* a, cudaDataType type_a, int lda, const void* b,
        cudaDataType type_b, int ldb, const void* beta, void* c, cudaDataType type_c, int ldc,
        cublasComputeType_t sums, cublasGemmAlgo_t) {
    return product(m, n, k, alpha, {type_of(type_a), (void*)a, lda, of_a != CUBLAS_OP_N},
                   {type_of(type_b), (void*)b, ldb, of_b != CUBLAS_OP_N}, beta,
                   {type_of(type_c), c, ldc, false}, sums);
}

cublasStatus_t cublasGemmStridedBatchedEx(
        cublasHandle_t, cublasOperation_t of_a, cublasOperation_t of_b, int m, int n, int k,
        const void* alpha, const void* a, cudaDataType type_a, int lda, long long stride_a,
        const void* b, cudaDataType type_b, int ldb, long long stride_b, const void* beta, void* c,
        cudaDataType type_c, int ldc, long long stride_c, int count, cublasComputeType_t sums,
        cublasGemmAlgo_t) {
    auto place = [](const void* array, cudaDataType type, long long offset) {
        return (void*)((char*)array + offset * (long long)size_of(type_of(type)));
    };
    for (int i = 0; i < count; i++) {
        Matrix x{type_of(type_a), place(a, type_a, i * stride_a), lda, of_a != CUBLAS_OP_N};
        Matrix y{type_of(type_b), place(b, type_b, i * stride_b), ldb, of_b != CUBLAS_OP_N};
        Matrix z{type_of(type_c), place(c, type_c, i * stride_c), ldc, false};
        cublasStatus_t status = product(m, n, k, alpha, x, y, beta, z, sums);
        if (status) return status;
    }
    return CUBLAS_STATUS_SUCCESS;
}
}
