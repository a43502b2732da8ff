# The twins have one interface; the reference documents it.
from fastws._py.masking import apply_mask as apply_mask
from fastws._py.masking import apply_mask_inplace as apply_mask_inplace

__all__ = ["apply_mask", "apply_mask_inplace"]
