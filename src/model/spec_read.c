#include "spec_read.h"
#include "spec_gguf.h"
#include "spec_hf.h"
#include "tensor_source.h"
#include <string.h>

nt_status nt_spec_read(const struct nt_tensor_source *src, struct nt_spec *spec) {
    memset(spec, 0, sizeof *spec);
    spec->bos_id = -1;
    if (src->gguf)
        NT_TRY(nt_spec_read_gguf(src, spec));
    else
        NT_TRY(nt_spec_read_hf(src, spec));
    return nt_spec_check(src->path, spec);
}
