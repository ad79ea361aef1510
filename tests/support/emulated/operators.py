"""All CUDA sources of ours: tests/parity/test_cuda_sources.py holds this table against the calls of
jt.code in jseg.
"""

from support.emulated import attention, group_norm, potential, rms_norm

OPERATORS = {
    "group_norm": group_norm.OPERATOR,
    "attention": attention.OPERATOR,
    "rms_norm": rms_norm.OPERATOR,
    "potential": potential.OPERATOR,
}
