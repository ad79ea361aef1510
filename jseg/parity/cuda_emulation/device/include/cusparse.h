// Stands in for cuSPARSE's header of that name: everything but its start is refused. No network of
// ours has sparse matrices.
#pragma once
#include <cuda_runtime_api.h>
#include <library_types.h>

typedef void *cusparseHandle_t, *cusparseSpMatDescr_t, *cusparseDnMatDescr_t;
typedef enum { CUSPARSE_STATUS_SUCCESS = 0, CUSPARSE_STATUS_NOT_SUPPORTED = 10 } cusparseStatus_t;
typedef enum { CUSPARSE_INDEX_32I = 2, CUSPARSE_INDEX_64I = 3 } cusparseIndexType_t;
typedef enum {
    CUSPARSE_OPERATION_NON_TRANSPOSE = 0,
    CUSPARSE_OPERATION_TRANSPOSE = 1
} cusparseOperation_t;
enum {
    CUSPARSE_INDEX_BASE_ZERO = 0,
    CUSPARSE_ORDER_ROW = 2,
    CUSPARSE_SPMM_ALG_DEFAULT = 0,
    CUSPARSE_SPMM_COO_ALG4 = 5,
    CUSPARSE_SPMM_CSR_ALG2 = 6
};

inline cusparseStatus_t cusparseCreate(cusparseHandle_t*) { return CUSPARSE_STATUS_SUCCESS; }
inline cusparseStatus_t cusparseDestroy(cusparseHandle_t) { return CUSPARSE_STATUS_SUCCESS; }
inline const char* _cudaGetErrorEnum(cusparseStatus_t) { return "not supported in emulation"; }
template <class... Arguments> int emulation_refuses_sparse(Arguments&&...) {
    return CUSPARSE_STATUS_NOT_SUPPORTED;
}
#define cusparseCreateCsr emulation_refuses_sparse
#define cusparseCreateCoo emulation_refuses_sparse
#define cusparseCreateDnMat emulation_refuses_sparse
#define cusparseDestroyDnMat emulation_refuses_sparse
#define cusparseDestroySpMat emulation_refuses_sparse
#define cusparseSpMM emulation_refuses_sparse
#define cusparseSpMM_bufferSize emulation_refuses_sparse
