/* CPU instruction set detection, compiled without ISA flags (the detector itself must run anywhere).
 *
 * A level names a set of bodies: AVX2 needs avx2+fma+f16c; AVX512 needs avx512 f/bw/dq/vl, bf16 and vnni, with the
 * operating system saving the registers. No state: every call asks CPUID again; any thread may call. A level that is
 * asked for by name and is missing is an error, never a silent step down. */
#ifndef NT_CPU_ISA_H
#define NT_CPU_ISA_H

#include "status.h"

enum nt_isa { NT_ISA_PORTABLE, NT_ISA_AVX2, NT_ISA_AVX512, NT_ISA_COUNT };

enum nt_isa nt_isa_detect(void);          /* best level of this CPU */
const char *nt_isa_name(enum nt_isa isa); /* "portable" ... */
/* "auto" or a name; NT_E_UNSUPPORTED when this CPU lacks it, naming the missing features. */
NT_MUST nt_status nt_isa_choose(const char *name, enum nt_isa *out);
void nt_cpu_describe(char *buf, size_t cap); /* model name and feature list, for doctor */

#endif
