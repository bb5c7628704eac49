#include "gpu_table.h"
#include <stddef.h>
#include <string.h>

#define PRACTICAL .compute_factor = 0.81, .memory_factor = 0.90, .link_factor = 0.75

static const struct nt_gpu table[] = {
    {.name = "a100-40",
     .doc = "A100 SXM 40 GB",
     .cc = 80,
     .flops = 312e12,
     .bandwidth = 1.555e12,
     .memory = 40e9,
     .link = 300e9,
     .link_delay = 6e-6,
     PRACTICAL},
    {.name = "a100-80",
     .doc = "A100 SXM 80 GB",
     .cc = 80,
     .flops = 312e12,
     .bandwidth = 2.04e12,
     .memory = 80e9,
     .link = 300e9,
     .link_delay = 6e-6,
     PRACTICAL},
    {.name = "l40s",
     .doc = "L40S, PCIe 4 x16 between GPUs",
     .cc = 89,
     .flops = 362e12,
     .bandwidth = 0.864e12,
     .memory = 48e9,
     .link = 32e9,
     .link_delay = 20e-6,
     PRACTICAL},
    {.name = "h100",
     .doc = "H100 SXM 80 GB",
     .cc = 90,
     .flops = 990e12,
     .bandwidth = 3.35e12,
     .memory = 80e9,
     .link = 450e9,
     .link_delay = 6e-6,
     PRACTICAL},
    {.name = "h200",
     .doc = "H200 SXM 141 GB",
     .cc = 90,
     .flops = 990e12,
     .bandwidth = 4.8e12,
     .memory = 141e9,
     .link = 450e9,
     .link_delay = 6e-6,
     PRACTICAL},
    {.name = "b200",
     .doc = "B200 SXM 180 GB",
     .cc = 100,
     .flops = 2250e12,
     .bandwidth = 8e12,
     .memory = 180e9,
     .link = 900e9,
     .link_delay = 6e-6,
     PRACTICAL},
};

const struct nt_gpu *nt_gpu_table(int32_t *n) {
    *n = (int32_t)(sizeof table / sizeof table[0]);
    return table;
}

const struct nt_gpu *nt_gpu_find(const char *name) {
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        if (strcmp(table[i].name, name) == 0) return &table[i];
    return NULL;
}
