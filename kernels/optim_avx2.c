/* The optimizer's step, 8 elements at a time by the compiler. */
#include "cpu_adamw.h"

nt_status nt_adamw_avx2(struct nt_backend *be, const struct nt_adamw_args *args) {
    nt_adamw_run(be, args);
    return NT_OK;
}
